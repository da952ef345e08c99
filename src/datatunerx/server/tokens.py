"""Who may ask: bearer tokens, kept as hashes, compared in constant time, gone the moment they are revoked.

The administrator's own token is a file of the home. Every other one is a Token object in the store, which
holds the SHA-256 of a token that whoever made it keeps: the server never has it in its hands before its use.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

EVERYWHERE = "*"
ADMIN_ROLE, EDITOR_ROLE, VIEWER_ROLE = "admin", "editor", "viewer"
ROLES = (VIEWER_ROLE, EDITOR_ROLE, ADMIN_ROLE)
KNOWN = "system:authenticated"


class User(NamedTuple):
    """Whom a token stands for, and what it was given."""

    name: str
    groups: tuple[str, ...] = (KNOWN,)
    role: str = ""
    """One of ROLES; without one a user may only ask about themselves."""
    namespaces: tuple[str, ...] = ()
    """Where the role holds; EVERYWHERE for all, and for what belongs to no namespace."""
    token: str = ""
    """Name of the Token object; empty for who needs none."""
    expires: float | None = None
    """Seconds since 1970."""

    def seconds_left(self) -> float:
        return float("inf") if self.expires is None else self.expires - time.time()


def administrator(name: str) -> User:
    """A user who may do everything."""
    return User(name, ("system:masters", KNOWN), ADMIN_ROLE, (EVERYWHERE,))


ADMIN = administrator("datatunerx:admin")


class Tokens:
    """From the SHA-256 of a token to its user: some that stay, and those of the Token objects."""

    def __init__(self, fixed: Mapping[str, User]) -> None:
        self._fixed = {digest.lower(): user for digest, user in fixed.items()}
        self._made: dict[str, tuple[str, User]] = {}

    @classmethod
    def of(cls, tokens: Mapping[str, User]) -> "Tokens":
        """From plain tokens."""
        return cls({digest(token): user for token, user in tokens.items()})

    def __len__(self) -> int:
        return len(self._fixed) + len(self._made)

    def learn(self, obj: Mapping[str, Any]) -> None:
        """A Token object was made or changed: from now on it counts as it stands."""
        spec, name = obj["spec"], obj["metadata"]["name"]
        end = spec.get("expires")
        user = User(
            spec["user"],
            (f"datatunerx:{spec['role']}", KNOWN),
            spec["role"],
            tuple(spec["namespaces"]),
            name,
            datetime.fromisoformat(end).timestamp() if end else None,
        )
        self._made[name] = (spec["sha256"], user)

    def forget(self, name: str) -> None:
        """A Token object is gone: so is what it let in."""
        self._made.pop(name, None)

    def user(self, authorization: str) -> User | None:
        """Whom an Authorization header stands for; None for nobody."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        given = digest(token.strip())
        found = None
        # Every row is compared, so that the time tells nothing about which one matched.
        for known, user in (*self._fixed.items(), *self._made.values()):
            if hmac.compare_digest(known, given):
                found = user
        return found if found and found.seconds_left() > 0 else None

    def valid(self, user: User) -> bool:
        """Whether someone who was let in would be let in again, with the same rights."""
        if not user.token:
            return True
        made = self._made.get(user.token)
        return made is not None and made[1] == user and user.seconds_left() > 0


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
