"""What storage refuses or cannot do; each message names the URI and what to do."""

import errno


class StorageError(Exception):
    """Base of what storage may raise."""


class Refused(StorageError, ValueError):
    """A URI that is not taken: it climbs out of its root, or its scheme cannot do what was asked."""


class PrivatePlace(Refused):
    """A file of the system's or of the server's own, which is nobody's data."""


class Missing(StorageError, FileNotFoundError):
    """Nothing is there."""


class TooLarge(StorageError):
    """More bytes than the caller wants to hold."""


class DiskFull(StorageError, OSError):
    """No space is left where the URI points to; what was there before is intact."""


class Unreachable(StorageError):
    """Nobody answers where the URI points to, or the answer broke off again and again."""


class Forbidden(StorageError):
    """Whoever answers does not let us read it with the credentials we have."""


class Changed(StorageError):
    """The file became another one while it was read."""


class NotResumable(StorageError):
    """The place gives bytes from the start only."""


def is_disk_full(error: BaseException) -> bool:
    """Whether it says that no space is left, or none of the account's own."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
