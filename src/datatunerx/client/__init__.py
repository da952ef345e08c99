"""How anyone reaches the API: transport, typed verbs, informer and keyed queue."""

from datatunerx.client.api import EVENTS, NAMESPACES, Api, Change, Plural
from datatunerx.client.errors import (
    AlreadyExists,
    ApiError,
    Cause,
    Conflict,
    Gone,
    Invalid,
    NotFound,
    Unauthorized,
    Unreachable,
)
from datatunerx.client.informer import Informer, Key, key_of
from datatunerx.client.queue import Queue
from datatunerx.client.transport import InProcess, Response, Transport

__all__ = [
    "EVENTS", "NAMESPACES", "AlreadyExists", "Api", "ApiError", "Cause", "Change", "Conflict", "Gone",
    "InProcess", "Informer", "Invalid", "Key", "NotFound", "Plural", "Queue", "Response", "Transport",
    "Unauthorized", "Unreachable", "key_of",
]  # fmt: skip
