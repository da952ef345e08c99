"""Who a browser is: its token sealed in a cookie, a CSRF token for that cookie, and links that let in once.

The seal is kept in no memory, so a login outlives a restart of the server. What it holds is checked by the
API at every request: a token that was revoked or has expired lets nobody in, whatever the cookie says.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.fernet import Fernet, InvalidToken

SESSION_SECONDS = 7 * 86400
LINK_SECONDS = 3600
MAX_LINKS = 1000


class Session(NamedTuple):
    """One browser. Without a token it may only log in."""

    id: str
    token: str = ""


class Sessions:
    """Seals and opens cookies, with a key that only the server has."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._mac = hashlib.sha256(b"datatunerx console csrf" + secret).digest()
        seal = hashlib.sha256(b"datatunerx console session" + secret).digest()
        self._seal = Fernet(base64.urlsafe_b64encode(seal))
        self._clock = clock
        self._links: dict[str, tuple[str, float]] = {}

    def begin(self, token: str = "") -> Session:
        """A new browser; a login always begins anew, so that nobody can plant a session."""
        return Session(secrets.token_urlsafe(16), token)

    def seal(self, session: Session) -> str:
        """The value of its cookie."""
        return (
            self._seal.encrypt_at_time(json.dumps(session).encode(), int(self._clock())).decode().rstrip("=")
        )

    def open(self, cookie: str) -> Session | None:
        """Whose cookie it is; None for one that is too old or not ours."""
        try:
            whole = cookie + "=" * (-len(cookie) % 4)
            data = self._seal.decrypt_at_time(whole.encode(), SESSION_SECONDS, int(self._clock()))
            return Session(*json.loads(data))
        except (InvalidToken, ValueError, TypeError):
            return None

    def csrf(self, session: Session) -> str:
        """What every change must bring along; a page of another site cannot read it."""
        return hmac.new(self._mac, session.id.encode(), hashlib.sha256).hexdigest()

    def genuine(self, session: Session, given: str) -> bool:
        return hmac.compare_digest(self.csrf(session).encode(), given.encode())

    def hide(self, document: Any) -> str:
        """A document as text that a page keeps for us and cannot read or change."""
        data = zlib.compress(json.dumps(document, ensure_ascii=False).encode())
        return self._seal.encrypt_at_time(data, int(self._clock())).decode()

    def show(self, text: str) -> Any:
        """What was hidden in it; None when that was not us, or is too long ago."""
        try:
            data = self._seal.decrypt_at_time(text.encode(), SESSION_SECONDS, int(self._clock()))
            return json.loads(zlib.decompress(data))
        except (InvalidToken, ValueError, zlib.error):
            return None

    def link(self, token: str) -> str:
        """A code that lets one browser in with the token, once, within the hour."""
        now = self._clock()
        self._links = {code: each for code, each in self._links.items() if each[1] > now}
        while len(self._links) >= MAX_LINKS:
            del self._links[next(iter(self._links))]
        code = secrets.token_urlsafe(32)
        self._links[code] = (token, now + LINK_SECONDS)
        return code

    def take(self, code: str) -> str | None:
        """The token of a code; None when it was used, is too old, or never was."""
        token, end = self._links.pop(code, ("", 0.0))
        return token if end > self._clock() else None
