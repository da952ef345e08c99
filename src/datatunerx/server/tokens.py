"""Who may ask: bearer tokens, kept as hashes, compared in constant time."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from datatunerx.server.files import write_private


class User(NamedTuple):
    """Whom a token stands for. Groups are the seam for roles."""

    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("datatunerx:admin", ("system:masters", "system:authenticated"))


class Tokens:
    """A table from the SHA-256 of a token to its user."""

    def __init__(self, hashes: Mapping[str, User]) -> None:
        self._hashes = {digest.lower(): user for digest, user in hashes.items()}

    @classmethod
    def of(cls, tokens: Mapping[str, User]) -> "Tokens":
        """From plain tokens."""
        return cls({digest(token): user for token, user in tokens.items()})

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """From a file of `[{"sha256": ..., "name": ..., "groups": [...]}]`."""
        rows = json.loads(path.read_bytes())
        return cls({row["sha256"]: User(row["name"], tuple(row["groups"])) for row in rows})

    def save(self, path: Path) -> None:
        """Write the hashes, readable by the owner only."""
        rows = [{"sha256": h, "name": u.name, "groups": list(u.groups)} for h, u in self._hashes.items()]
        write_private(path, json.dumps(rows, indent=1).encode())

    def user(self, authorization: str) -> User | None:
        """Whom an Authorization header stands for; None for nobody."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        given = digest(token.strip())
        found = None
        # Every row is compared, so that the time tells nothing about which one matched.
        for known, user in self._hashes.items():
            if hmac.compare_digest(known, given):
                found = user
        return found


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def allowed_host(header: str, hosts: Iterable[str]) -> bool:
    """Whether a Host header (or the authority of an Origin) names this server, whatever the port."""
    name = header.strip().lower()
    if name.startswith("["):
        name = name[1:].split("]", 1)[0]
    elif name.count(":") == 1:
        name = name.split(":", 1)[0]
    return name in hosts
