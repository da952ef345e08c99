"""Refusals as Kubernetes words them: each becomes a Status object with a code, a reason and details."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from datatunerx.store import Broken, Busy, Conflict, DiskFull, Expired, StoreError

Json = dict[str, Any]


class Cause(NamedTuple):
    """One thing wrong with one field."""

    reason: str
    """FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, ..."""
    field: str
    message: str


class ApiError(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Json:
        """The Status object that is sent."""
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            body["details"] = self.details
        return body | {"code": self.code}


def _details(resource: str, name: str) -> Json:
    plural, _, group = resource.partition(".")
    return {"name": name} | ({"group": group} if group else {}) | {"kind": plural}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    told = "Unauthorized: the token is missing, unknown, revoked or over; send the one of a kubeconfig"
    return ApiError(401, "Unauthorized", told)


def forbidden(message: str, resource: str = "", name: str = "") -> ApiError:
    return ApiError(403, "Forbidden", message, _details(resource, name) if resource else None)


def not_found(resource: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource} "{name}" not found', _details(resource, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def not_allowed(message: str) -> ApiError:
    return ApiError(405, "MethodNotAllowed", message)


def already_exists(resource: str, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists', _details(resource, name))


def conflict(resource: str, name: str, why: str | None = None) -> ApiError:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def apply_conflict(causes: Sequence[Cause]) -> ApiError:
    plural = "" if len(causes) == 1 else "s"
    lines = "; ".join(f"{cause.message}: {cause.field}" for cause in causes)
    message = f"Apply failed with {len(causes)} conflict{plural}: {lines}"
    return ApiError(409, "Conflict", message, {"causes": [cause._asdict() for cause in causes]})


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_large(limit: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def internal_error() -> ApiError:
    return ApiError(500, "InternalError", "Internal error occurred: the log of the server says more")


def unsupported_media(found: str, accepted: Sequence[str]) -> ApiError:
    message = (
        f"the body of the request was in an unknown format ({found}) - "
        f"accepted media types include: {', '.join(accepted)}"
    )
    return ApiError(415, "UnsupportedMediaType", message)


def invalid(group_kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """`group_kind` is Kind.group, as kubectl prints it."""
    told = [f"{cause.field}: {cause.message}" for cause in causes]
    listed = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    kind, _, group = group_kind.partition(".")
    details = {"name": name, "group": group, "kind": kind, "causes": [cause._asdict() for cause in causes]}
    return ApiError(422, "Invalid", f'{group_kind} "{name}" is invalid: {listed}', details)


def required(field: str, message: str = "Required value") -> Cause:
    return Cause("FieldValueRequired", field, message)


def wrong(field: str, value: object, why: str) -> Cause:
    return Cause("FieldValueInvalid", field, f"Invalid value: {shown(value)}: {why}")


def shown(value: object) -> str:
    """A value as error messages quote it, shortened."""
    if isinstance(value, str):
        return f'"{value if len(value) <= 200 else value[:200] + "..."}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return '"object"'
    return '"array"' if isinstance(value, list) else str(value)


def from_store(error: StoreError, resource: str, name: str) -> ApiError:
    """What a refusal of the store is to a client."""
    match error:
        case Conflict():
            return conflict(resource, name)
        case Expired():
            return expired(str(error))
        case DiskFull():
            return ApiError(507, "InsufficientStorage", f'{resource} "{name}" was not saved: {error}')
        case Busy() | Broken():
            return ApiError(error.code, "StorageError", f'{resource} "{name}" was not saved: {error}')
    return ApiError(503, "ServiceUnavailable", str(error))
