"""What each role may do, as rules in Kubernetes' own terms. What no rule allows is refused.

One table answers requests, `kubectl auth can-i` and `kubectl auth can-i --list`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from datatunerx.resources.kinds import KINDS
from datatunerx.resources.wire import GROUP
from datatunerx.server.errors import ApiError, Json, forbidden
from datatunerx.server.tokens import ADMIN_ROLE, EDITOR_ROLE, EVERYWHERE, VIEWER_ROLE, User


class Access(NamedTuple):
    """One thing someone wants to do: to a resource, or to a path that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    """The plural; with a subresource as plural/subresource."""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def place(self) -> str:
        """The namespace whose rules count: reading a namespace itself is a matter of that namespace."""
        if self.group or self.resource.split("/")[0] != "namespaces":
            return self.namespace
        return self.name if self.verb == "get" else ""


class Rule(NamedTuple):
    """Every verb on every resource of every group named; or verbs on paths. `*` stands for all."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def allows(self, access: Access) -> bool:
        if not _in(access.verb, self.verbs):
            return False
        if access.path:
            return any(access.path == path or _below(access.path, path) for path in self.paths)
        return _in(access.group, self.groups) and _in(access.resource, self.resources)


READ = ("get", "list", "watch")
CHANGE = ("create", "delete", "deletecollection", "patch", "update")
ALL = Rule(("*",), ("*",), ("*",))
_OURS = tuple(kind.plural for kind in KINDS)
_STATUS = tuple(f"{plural}/status" for plural in _OURS)
_SCALE = tuple(f"{kind.plural}/scale" for kind in KINDS if kind.scalable)
_MADE_BY_US = ("runs", "llmcheckpoints")
"""They say what is executed and which files belong to them, so only controllers make them."""
_CORE = ("configmaps", "serviceaccounts")
_EVENTS = ("", "events.k8s.io"), ("events",)

EVERYBODY = (
    Rule(("create",), ("authorization.k8s.io",), ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
    Rule(READ, ("apiextensions.k8s.io",), ("customresourcedefinitions",)),
    Rule(
        ("get", "head"),
        paths=("/", "/api", "/api/*", "/apis", "/apis/*", "/openapi/*", "/version"),
    ),
)
VIEWER = (
    Rule(READ, (GROUP,), _OURS),
    Rule(("get",), (GROUP,), (*_STATUS, *_SCALE, "datasets/report")),
    Rule(("get",), (GROUP,), ("runs/events", "runs/log", "runs/points", "scorings/predictions")),
    Rule(READ, ("",), (*_CORE, "pods")),
    Rule(READ, *_EVENTS),
    Rule(("get",), ("",), ("pods/log", "namespaces", "namespaces/status")),
    Rule(READ, ("coordination.k8s.io",), ("leases",)),
    Rule(("list", "watch"), ("",), ("secrets",)),  # they show no values; get does
)
EDITOR = (
    *VIEWER,
    Rule(CHANGE, (GROUP,), tuple(plural for plural in _OURS if plural not in _MADE_BY_US)),
    Rule(("patch", "update"), (GROUP,), _SCALE),
    # An answer takes the device's time, and asking loads what is unloaded: more than looking.
    Rule(("get", "create"), (GROUP,), ("inferenceservices/proxy",)),
    Rule(("create",), (GROUP,), ("inferenceservices/compare",)),
    Rule(("delete", "deletecollection", "patch", "update"), (GROUP,), ("llmcheckpoints",)),
    Rule(("get",), (GROUP,), ("llmcheckpoints/files",)),  # to take a model away is more than to look at it
    Rule(("get", *CHANGE), ("",), ("secrets",)),
    Rule(CHANGE, ("",), _CORE),
    Rule(CHANGE, *_EVENTS),
    Rule(CHANGE, ("coordination.k8s.io",), ("leases",)),
)
ADMIN_OF_NAMESPACE = (
    *EDITOR,
    Rule(CHANGE, (GROUP,), (*_MADE_BY_US, *_STATUS)),
)
_OF_ROLE = {VIEWER_ROLE: VIEWER, EDITOR_ROLE: EDITOR, ADMIN_ROLE: ADMIN_OF_NAMESPACE}


def rules(user: User, namespace: str) -> Iterator[Rule]:
    """What holds for the user in a namespace; "" is what belongs to none, and all of them together."""
    yield from EVERYBODY
    if user.role == ADMIN_ROLE and EVERYWHERE in user.namespaces:
        yield ALL
        yield Rule(("*",), paths=("*",))
    elif EVERYWHERE in user.namespaces or (namespace and namespace in user.namespaces):
        yield from _OF_ROLE.get(user.role, ())
        if EVERYWHERE in user.namespaces:
            yield Rule(("list", "watch"), ("",), ("namespaces",))


def authorize(user: User, access: Access) -> bool:
    """Whether the user may."""
    return any(rule.allows(access) for rule in rules(user, access.place))


def refusal(user: User, access: Access) -> ApiError:
    """403 in Kubernetes' words."""
    if access.path:
        return forbidden(f'forbidden: User "{user.name}" cannot {access.verb} path "{access.path}"')
    plural = access.resource.partition("/")[0]
    resource = f"{plural}.{access.group}" if access.group else plural
    where = f'in the namespace "{access.namespace}"' if access.namespace else "at the cluster scope"
    name = f' "{access.name}"' if access.name else ""
    return forbidden(
        f'{resource}{name} is forbidden: User "{user.name}" cannot {access.verb} resource '
        f'"{access.resource}" in API group "{access.group}" {where}',
        resource,
        access.name,
    )


def listed(user: User, namespace: str) -> Json:
    """The status of a SelfSubjectRulesReview."""
    resources, others = [], []
    for rule in rules(user, namespace):
        if rule.paths:
            others.append({"verbs": list(rule.verbs), "nonResourceURLs": list(rule.paths)})
        else:
            names = {"apiGroups": list(rule.groups), "resources": list(rule.resources)}
            resources.append({"verbs": list(rule.verbs)} | names)
    return {"resourceRules": resources, "nonResourceRules": others, "incomplete": False}


def _in(word: str, words: tuple[str, ...]) -> bool:
    return "*" in words or word in words


def _below(path: str, pattern: str) -> bool:
    return pattern.endswith("*") and path.startswith(pattern[:-1])
