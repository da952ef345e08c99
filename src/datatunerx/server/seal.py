"""Secrets at rest: AES-GCM with a key in a file that only the owner can read."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datatunerx.server.files import write_private

_NONCE = 12
_MARK = b"s2"
"""Bound to where it belongs: what stands behind it is another Secret's bytes nowhere."""
_UNBOUND = b"s1"
"""As it was before; bound anew when the store is opened."""
_WAY_OUT = "put back the key they were sealed with and start the server again"


class FileKeySeal:
    """Seals bytes with the key in `path`, which is made when the first ones are sealed.

    Both ways raise ValueError, with the file and the way out, when the key cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cipher = _cipher(path) if path.exists() else None

    def seal(self, data: bytes, place: bytes = b"") -> bytes:
        if self._cipher is None:
            write_private(self._path, AESGCM.generate_key(bit_length=256))
            self._cipher = _cipher(self._path)
        if isinstance(self._cipher, str):
            raise ValueError(self._cipher)
        nonce = os.urandom(_NONCE)
        return _MARK + nonce + self._cipher.encrypt(nonce, data, _MARK + place)

    def is_unbound(self, data: bytes) -> bool:
        """Whether the stored bytes are of the time before they were bound to their place."""
        return data.startswith(_UNBOUND)

    def unseal(self, data: bytes, place: bytes = b"") -> bytes:
        if self._cipher is None:
            raise ValueError(f"{self._path} is missing: Secrets cannot be read; {_WAY_OUT}")
        if isinstance(self._cipher, str):
            raise ValueError(self._cipher)
        nonce = data[len(_MARK) : len(_MARK) + _NONCE]
        bound = _UNBOUND if self.is_unbound(data) else _MARK + place
        try:
            return self._cipher.decrypt(nonce, data[len(_MARK) + _NONCE :], bound)
        except InvalidTag:
            where = place.replace(b"\0", b"/").decode(errors="replace")
            moved = f", or the bytes of {where} were changed, or put there from elsewhere" if place else ""
            raise ValueError(
                f"{self._path} is not the key that Secrets were sealed with{moved}; {_WAY_OUT}"
            ) from None


def _cipher(path: Path) -> "AESGCM | str":
    """Ready to use, or what is wrong with the file."""
    try:
        path.chmod(0o600)
        return AESGCM(path.read_bytes())
    except (ValueError, OSError) as error:
        return f"{path} holds no key ({error}); {_WAY_OUT}"
