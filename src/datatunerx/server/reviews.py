"""Reviews of oneself: who am I, what may I do."""

from collections.abc import Callable
from typing import NamedTuple

from datatunerx.server import body
from datatunerx.server.errors import Json
from datatunerx.server.http import Request
from datatunerx.server.kinds import Kind
from datatunerx.server.tokens import User


class Access(NamedTuple):
    """One thing someone wants to do."""

    verb: str
    resource: str
    """plural.group; empty for a path that is no resource."""
    namespace: str
    name: str


Authorize = Callable[[User, Access], bool]


def allow_all(user: User, access: Access) -> bool:
    """Whoever has a token may do everything; roles come here."""
    return True


async def answer(kind: Kind, request: Request, authorize: Authorize) -> Json:
    """The review with its status."""
    review = await body.read(request, kind)
    spec = review.get("spec") or {}
    if kind.name == "SelfSubjectAccessReview":
        wanted = spec.get("resourceAttributes") or {}
        plural, group = wanted.get("resource", ""), wanted.get("group", "")
        resource = f"{plural}.{group}" if group else plural
        access = Access(wanted.get("verb", ""), resource, wanted.get("namespace", ""), wanted.get("name", ""))
        review["status"] = {"allowed": authorize(request.user, access)}
    elif kind.name == "SelfSubjectRulesReview":
        rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
        review["status"] = {"resourceRules": [rule], "nonResourceRules": [paths], "incomplete": False}
    else:
        user = {"username": request.user.name, "groups": list(request.user.groups)}
        review["status"] = {"userInfo": user}
    return review
