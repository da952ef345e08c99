"""Secrets at rest: AES-GCM with a key in a file that only the owner can read."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datatunerx.server.files import write_private

_NONCE = 12
_MARK = b"s1"


class FileKeySeal:
    """Seals bytes with the key in `path`, which is made at first use."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            write_private(path, AESGCM.generate_key(bit_length=256))
        self._path = path
        self._cipher = AESGCM(path.read_bytes())

    def seal(self, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return _MARK + nonce + self._cipher.encrypt(nonce, data, _MARK)

    def unseal(self, data: bytes) -> bytes:
        nonce = data[len(_MARK) : len(_MARK) + _NONCE]
        try:
            return self._cipher.decrypt(nonce, data[len(_MARK) + _NONCE :], _MARK)
        except InvalidTag:
            raise ValueError(
                f"a secret cannot be read with the key in {self._path}; put back the key it was written with"
            ) from None
