"""Refusing what a web page of another site makes a browser send: DNS rebinding and cross-site requests."""

import re
from collections.abc import Collection

from datatunerx.server.errors import forbidden
from datatunerx.server.http import Request
from datatunerx.server.tls import LOCAL_NAMES

_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[-a-z0-9_.]+))(:\d+)?")


def names(hosts: Collection[str]) -> frozenset[str]:
    """What the server may be called: this machine's own names for itself, and `hosts`."""
    return frozenset(host.lower() for host in (*LOCAL_NAMES, *hosts))


def check(request: Request, names: Collection[str]) -> None:
    """Refuse (403) a Host that is no name of this server, and what a page of another origin sent.

    A rebound name resolves to us but is not ours. Another origin may be another port of this machine.
    """
    host, origin = request.header("host").lower(), request.header("origin").lower()
    if not called(hostname(host), names):
        raise forbidden(f'Host "{host}" is not a name of this server; its certificate has those that are')
    if origin and origin != f"https://{host}":
        raise forbidden(f'Origin "{origin}" may not use this server')
    if request.header("sec-fetch-site") in ("cross-site", "same-site"):
        followed = request.method == "GET" and request.header("sec-fetch-mode") == "navigate"
        if not followed:  # a link may lead here; nothing else may
            raise forbidden("a page of another site may not use this server")


def hostname(header: str) -> str:
    """The name in a Host header, without the port; empty when it is none."""
    found = _HOST.fullmatch(header)
    return (found["address"] or found["name"]) if found else ""


def called(name: str, names: Collection[str]) -> bool:
    """Whether a name is among those of a certificate, where `*.a` stands for one label before `.a`."""
    parent = name.partition(".")[2]
    return bool(name) and (name in names or (bool(parent) and f"*.{parent}" in names))
