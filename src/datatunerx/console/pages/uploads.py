"""Files of the visitor's machine: passed on to the upload route of the API, with the visitor's token."""

import json

from starlette.responses import JSONResponse, Response

from datatunerx.client import ApiError
from datatunerx.client.errors import from_answer
from datatunerx.console import dataset_form, kinds
from datatunerx.console.visit import Page, Refused, Visit

MAX_BEGIN = 4096
MAX_PART = 8 << 20
"""Bytes of one request: it is held in memory."""
PLACE = "/datasets/_uploads"
"""No object may have such a name."""


async def begin(visit: Visit) -> Response:
    """What the server has of the file; with the split and the name that its name suggests."""
    try:
        asked = json.loads(await _body(visit, MAX_BEGIN) or b"")
        name, size = str(asked["name"]), int(asked["size"])
    except (ValueError, KeyError, TypeError):
        return _refusal(400, visit.say("This is no upload."))
    if not size:
        return _refusal(400, visit.say("The file is empty. Write rows into it first."))
    body = json.dumps({"name": dataset_form.file_name(name), "size": size, "sha256": asked.get("sha256")})
    answer = await _pass_on(visit, "POST", "", body.encode(), "application/json")
    if answer.status_code >= 300:
        return answer
    taken = {kinds.name_of(obj) for obj in await kinds.some(visit.api, "Dataset", visit.namespace)}
    suggested = {"split": dataset_form.split_of(name), "suggested": dataset_form.name_for(name, taken)}
    return JSONResponse(json.loads(bytes(answer.body)) | suggested)


async def put(visit: Visit) -> Response:
    """The bytes from `offset` on."""
    body = await _body(visit, MAX_PART)
    if body is None:
        return _refusal(413, f"a part has at most {MAX_PART} bytes, and says how many")
    query = {"offset": visit.query.get("offset", "")}
    return await _pass_on(visit, "PUT", _id(visit), body, "application/octet-stream", query)


async def look(visit: Visit) -> Response:
    return await _pass_on(visit, "GET", _id(visit))


async def complete(visit: Visit) -> Response:
    return await _pass_on(visit, "POST", f"{_id(visit)}/complete")


async def give_up(visit: Visit) -> Response:
    return await _pass_on(visit, "DELETE", _id(visit))


async def _body(visit: Visit, most: int) -> bytes | None:
    """The body; None for one that is too large, or does not say how large it is."""
    length = visit.request.headers.get("content-length", "")
    return await visit.request.body() if length.isdigit() and int(length) <= most else None


def _id(visit: Visit) -> str:
    found = str(visit.request.path_params["id"])
    if not (len(found) == 32 and found.isalnum() and found.isascii()):
        raise Refused("This is no upload.")
    return found


async def _pass_on(
    visit: Visit, method: str, path: str, body: bytes | None = None, form: str = "",
    query: dict[str, str] | None = None,
) -> Response:  # fmt: skip
    where = "/".join(filter(None, (f"/uploads/v1/namespaces/{visit.namespace}", path)))
    headers = {"content-type": form} if form else {}
    try:
        answer = await visit.api.transport.request(method, where, query=query, body=body, headers=headers)
    except ApiError as error:
        return _refusal(503, error.message)
    if answer.status >= 300:
        return _refusal(answer.status, from_answer(answer.status, answer.body).message)
    return Response(answer.body, answer.status, media_type="application/json")


def _refusal(code: int, message: str) -> Response:
    return JSONResponse({"message": message}, code)


routes = [
    Page(PLACE, begin, ("POST",)),
    Page(f"{PLACE}/{{id}}", put, ("PUT",)),
    Page(f"{PLACE}/{{id}}", look),
    Page(f"{PLACE}/{{id}}", give_up, ("DELETE",)),
    Page(f"{PLACE}/{{id}}/complete", complete, ("POST",)),
]
