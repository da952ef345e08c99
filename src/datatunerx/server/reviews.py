"""Reviews of oneself: who am I, what may I do. Answered by the rules that requests are judged by."""

from datatunerx.server import body, roles
from datatunerx.server.errors import Json
from datatunerx.server.http import Request
from datatunerx.server.kinds import Kind
from datatunerx.server.roles import Access


async def answer(kind: Kind, request: Request) -> Json:
    """The review with its status."""
    review = await body.read(request, kind)
    spec = review.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    if kind.name == "SelfSubjectAccessReview":
        review["status"] = {"allowed": roles.authorize(request.user, _wanted(spec))}
    elif kind.name == "SelfSubjectRulesReview":
        review["status"] = roles.listed(request.user, str(spec.get("namespace") or ""))
    else:
        user = {"username": request.user.name, "groups": list(request.user.groups)}
        review["status"] = {"userInfo": user}
    return review


def _wanted(spec: Json) -> Access:
    found = spec.get("nonResourceAttributes")
    if isinstance(found, dict):
        return Access(str(found.get("verb", "")), path=str(found.get("path") or "/"))
    found = spec.get("resourceAttributes")
    asked = {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}
    resource, subresource = asked.get("resource", ""), asked.get("subresource", "")
    if subresource:
        resource = f"{resource}/{subresource}"
    place = asked.get("namespace", ""), asked.get("name", "")
    return Access(asked.get("verb", ""), asked.get("group", ""), resource, *place)
