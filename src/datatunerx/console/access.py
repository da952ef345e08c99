"""What the visitor may do, asked of the API once per page, so that no button is dead."""

from collections.abc import Sequence
from typing import Any

from datatunerx.client import Api, Plural
from datatunerx.resources import GROUP

RULES = Plural("authorization.k8s.io", "v1", "selfsubjectrulesreviews", namespaced=False)
SELF = Plural("authentication.k8s.io", "v1", "selfsubjectreviews", namespaced=False)

Rules = Sequence[dict[str, Any]]


async def rules(api: Api, namespace: str) -> Rules:
    """The visitor's rules in a namespace, as the API states them."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    answer = await api.create_raw(RULES, body | {"spec": {"namespace": namespace}}, namespace)
    return list(answer["status"]["resourceRules"])


async def who(api: Api) -> str:
    """The visitor's name. Raises Unauthorized when the token is none."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await api.create_raw(SELF, body)
    return str(answer["status"]["userInfo"]["username"])


def allowed(rules: Rules, verb: str, resource: str, group: str = GROUP) -> bool:
    """Whether one of the rules lets the verb through."""
    return any(
        _in(verb, rule["verbs"]) and _in(group, rule["apiGroups"]) and _in(resource, rule["resources"])
        for rule in rules
    )


def _in(word: str, words: Sequence[str]) -> bool:
    return "*" in words or word in words
