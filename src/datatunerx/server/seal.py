"""Secrets at rest: AES-GCM with a key in a file that only the owner can read."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datatunerx.server.files import write_private

_NONCE = 12
_MARK = b"s1"
_WAY_OUT = "put back the key they were sealed with and start the server again"


class FileKeySeal:
    """Seals bytes with the key in `path`, which is made when the first ones are sealed.

    Both ways raise ValueError, with the file and the way out, when the key cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cipher = _cipher(path) if path.exists() else None

    def seal(self, data: bytes) -> bytes:
        if self._cipher is None:
            write_private(self._path, AESGCM.generate_key(bit_length=256))
            self._cipher = _cipher(self._path)
        if isinstance(self._cipher, str):
            raise ValueError(self._cipher)
        nonce = os.urandom(_NONCE)
        return _MARK + nonce + self._cipher.encrypt(nonce, data, _MARK)

    def unseal(self, data: bytes) -> bytes:
        if self._cipher is None:
            raise ValueError(f"{self._path} is missing: Secrets cannot be read; {_WAY_OUT}")
        if isinstance(self._cipher, str):
            raise ValueError(self._cipher)
        nonce = data[len(_MARK) : len(_MARK) + _NONCE]
        try:
            return self._cipher.decrypt(nonce, data[len(_MARK) + _NONCE :], _MARK)
        except InvalidTag:
            raise ValueError(
                f"{self._path} is not the key that Secrets were sealed with; {_WAY_OUT}"
            ) from None


def _cipher(path: Path) -> "AESGCM | str":
    """Ready to use, or what is wrong with the file."""
    try:
        path.chmod(0o600)
        return AESGCM(path.read_bytes())
    except (ValueError, OSError) as error:
        return f"{path} holds no key ({error}); {_WAY_OUT}"
