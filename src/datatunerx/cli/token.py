"""Tokens for others: made here, so that only their hash travels; listed, revoked, written as a kubeconfig."""

import getpass
import hashlib
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from datatunerx.app.settings import Settings
from datatunerx.cli.connect import access, connected
from datatunerx.cli.errors import BadInput, Exit
from datatunerx.client import Api
from datatunerx.client.api import Plural

TOKENS = Plural("auth.datatunerx.io", "v1", "tokens", namespaced=False)
ROLES = ("viewer", "editor", "admin")
PREFIX = "dtx_"
"""So that who scans for leaked secrets knows ours."""
_UNITS = {"m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Grant:
    """What a token is to allow."""

    user: str
    role: str
    namespaces: tuple[str, ...]
    """("*",) is all of them."""
    expires: datetime | None

    def __str__(self) -> str:
        where = "all namespaces" if self.namespaces == ("*",) else ", ".join(self.namespaces)
        until = f"until {self.expires:%Y-%m-%d %H:%M} UTC" if self.expires else "for ever"
        return f"{self.user}, {self.role} in {where}, {until}"


def grant(
    user: str | None, role: str, namespaces: Sequence[str], expires: str, *, everywhere: bool, now: datetime
) -> Grant:
    """What the options ask for. Raises BadInput."""
    if role not in ROLES:
        raise BadInput(f"--role {role}: must be one of {', '.join(ROLES)}")
    if everywhere and namespaces:
        raise BadInput("give --namespace or --all-namespaces, not both")
    where = ("*",) if everywhere else tuple(namespaces) or ("default",)
    return Grant(user or getpass.getuser(), role, where, _end(expires, now))


def _end(text: str, now: datetime) -> datetime | None:
    if text == "never":
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})([mhd])", text)
    if found is None:
        raise BadInput(f"--expires {text}: write 90m, 12h, 30d or never")
    return now + timedelta(seconds=int(found[1]) * _UNITS[found[2]])


async def make(api: Api, wanted: Grant, name: str | None = None) -> tuple[str, str]:
    """(the token, the name of the object that lets it in). It is never sent before it is used."""
    token = PREFIX + secrets.token_urlsafe(32)
    stem = re.sub(r"[^a-z0-9]+", "-", wanted.user.lower()).strip("-") or "user"
    spec = {
        "user": wanted.user,
        "role": wanted.role,
        "namespaces": list(wanted.namespaces),
        "sha256": hashlib.sha256(token.encode()).hexdigest(),
    }
    if wanted.expires:
        spec["expires"] = wanted.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": name} if name else {"generateName": f"{stem}-"}
    head = {"apiVersion": f"{TOKENS.group}/{TOKENS.version}", "kind": "Token", "metadata": metadata}
    made = await api.create_raw(TOKENS, head | {"spec": spec})
    return token, str(made["metadata"]["name"])


async def create(api: Api, wanted: Grant, name: str | None) -> Exit:
    """Print the token, and nothing else, on standard output."""
    token, made = await make(api, wanted, name)
    print(token)
    print(f"token {made}: {wanted}. This is the only time it is shown.", file=sys.stderr)
    return Exit.OK


async def revoke(api: Api, names: Sequence[str], user: str | None) -> Exit:
    """By name, or all of a user; what they follow ends with them."""
    if bool(names) == bool(user):
        raise BadInput("give the names of tokens, or --user for all of a user's")
    if user:
        found = await api.list(TOKENS)
        names = [token["metadata"]["name"] for token in found if token["spec"]["user"] == user]
        if not names:
            raise BadInput(f"user {user} has no token; `dtx token list` shows who has")
    for name in names:
        await api.delete(TOKENS, name)
        print(f"token {name} revoked")
    return Exit.OK


async def kubeconfig(found: Settings, wanted: Grant, out: Path | None) -> Exit:
    """Make a token and print, or write 0600, a kubeconfig that holds it."""
    from datatunerx.server import kubeconfig as form
    from datatunerx.server.files import write_private

    here = access(found)
    async with connected(found) as api:
        token, made = await make(api, wanted)
    namespace = "default" if wanted.namespaces == ("*",) else wanted.namespaces[0]
    text = form.text(here.server, here.ca, token, namespace=namespace, tls_name=here.tls_name)
    if out is None:
        print(text, end="")
    else:
        write_private(out, text.encode())
    print(f"token {made}: {wanted}" + (f", in {out}" if out else ""), file=sys.stderr)
    return Exit.OK
