"""One data directory, one server: two writers would break the order of versions."""

import fcntl
import os
from pathlib import Path

from datatunerx.store.errors import Locked


class DirectoryLock:
    """Holds `path` until released or until the process is gone, however it goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise Locked(
                f"{path.parent} is in use by another server (pid {holder}); "
                f"stop that one, or give this one another data directory"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next server in. The file stays: removing it would let two hold different files."""
        os.close(self._fd)
