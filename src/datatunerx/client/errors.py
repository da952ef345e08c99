"""What the API may refuse, as a small tree; every message is for the user."""

import json
from collections.abc import Sequence
from typing import NamedTuple


class Cause(NamedTuple):
    """One thing wrong with one field."""

    reason: str
    field: str
    message: str


class ApiError(Exception):
    """An answer that is not what was asked for. `status` is the HTTP status, 0 if there was no answer."""

    def __init__(
        self, status: int, reason: str, message: str, causes: Sequence[Cause] = (), name: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = tuple(causes)
        self.name = name
        """Of the object it is about, if the server said so."""


class NotFound(ApiError):
    """There is no such object, or no such kind."""


class Conflict(ApiError):
    """The object changed since it was read; read it again."""


class AlreadyExists(ApiError):
    """An object of that name is there."""


class Invalid(ApiError):
    """The object breaks its schema or a rule; `causes` name the fields."""


class Gone(ApiError):
    """The version is too old to go on from; list again."""


class Unauthorized(ApiError):
    """The token is missing or wrong, or may not do this."""


class Unreachable(ApiError):
    """No server answered at the URL that the message names."""


_BY_REASON: dict[str, type[ApiError]] = {
    "NotFound": NotFound,
    "Conflict": Conflict,
    "AlreadyExists": AlreadyExists,
    "Invalid": Invalid,
    "Expired": Gone,
    "Gone": Gone,
    "Unauthorized": Unauthorized,
    "Forbidden": Unauthorized,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}


def from_answer(status: int, body: bytes) -> ApiError:
    """The error behind an HTTP answer whose body is, or should be, a Status object."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(of_model := document.get("error"), dict):
        kind = _BY_STATUS.get(status, ApiError)  # what a served model answers, in OpenAI's shape
        return kind(status, str(of_model.get("code") or ""), str(of_model.get("message") or "refused"))
    if not isinstance(document, dict) or document.get("kind") != "Status":
        text = body[:500].decode("utf-8", "replace").strip() or "no message"
        return _BY_STATUS.get(status, ApiError)(status, "", f"the server answered {status}: {text}")
    return from_status(document, status)


def from_status(document: dict[str, object], status: int = 0) -> ApiError:
    """The error that a Status object speaks of."""
    code = document.get("code")
    status = code if isinstance(code, int) else status
    reason = str(document.get("reason") or "")
    details = document.get("details")
    details = details if isinstance(details, dict) else {}
    causes = [
        Cause(str(c.get("reason", "")), str(c.get("field", "")), str(c.get("message", "")))
        for c in details.get("causes") or []
    ]
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(status, ApiError)
    message = str(document.get("message") or reason or f"the server answered {status}")
    return kind(status, reason, message, causes, str(details.get("name") or ""))
