"""What storage refuses or cannot do; each message names the URI and what to do."""


class StorageError(Exception):
    """Base of what storage may raise."""


class Refused(StorageError, ValueError):
    """A URI that is not taken: it climbs out of its root, or its scheme cannot do what was asked."""


class Missing(StorageError, FileNotFoundError):
    """Nothing is there."""


class TooLarge(StorageError):
    """More bytes than the caller wants to hold."""


class DiskFull(StorageError, OSError):
    """No space is left where the URI points to; what was there before is intact."""
