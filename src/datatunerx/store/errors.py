"""What a store may answer instead of doing what it was asked."""


class StoreError(Exception):
    """Base of every refusal; `code` is the HTTP status it becomes."""

    code = 500


class Conflict(StoreError):
    """The object changed, appeared or vanished since it was read; read it again."""

    code = 409


class Expired(StoreError):
    """The version asked for is no longer, or never was, in the history; list again."""

    code = 410


class DiskFull(StoreError):
    """The write was not made because the disk has no room; reads go on, and so do writes once there is."""

    code = 507


class Broken(StoreError):
    """A commit failed in a way that leaves its outcome unknown; only a restart may write again."""

    code = 500


class Locked(StoreError):
    """Another process holds the data directory."""

    code = 500


class Busy(StoreError):
    """Another program keeps the database file locked; nothing was written."""

    code = 503
