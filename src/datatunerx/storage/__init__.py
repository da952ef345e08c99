"""Objects by URI through fsspec, published whole or not at all."""

from datatunerx.storage.errors import (
    Changed,
    DiskFull,
    Forbidden,
    Missing,
    PrivatePlace,
    Refused,
    StorageError,
    TooLarge,
    Unreachable,
    is_disk_full,
)
from datatunerx.storage.objects import (
    delete_tree,
    exists,
    free_bytes,
    list_dir,
    make_folder,
    publish_dir,
    read_bytes,
    read_tail,
    sha256_of,
    sync_folder,
    sync_tree,
    write_atomic,
)
from datatunerx.storage.paths import CheckPlace, is_local, join, local_path, refuse_outside, refuse_private

__all__ = [
    "Changed", "CheckPlace", "DiskFull", "Forbidden", "Missing", "PrivatePlace", "Refused", "StorageError",
    "TooLarge", "Unreachable", "delete_tree", "exists", "free_bytes", "is_disk_full", "is_local", "join",
    "list_dir", "local_path", "make_folder", "publish_dir", "read_bytes", "read_tail",
    "refuse_outside", "refuse_private", "sha256_of", "sync_folder", "sync_tree", "write_atomic",
]  # fmt: skip
