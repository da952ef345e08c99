"""Which files of this machine a Dataset or an LLM may name."""

from pathlib import Path

from datatunerx import storage
from datatunerx.runs import RunPlan


def check_place(plan: RunPlan) -> storage.CheckPlace:
    """Refuses the server's own files and the kernel's, over links too, and what the plan does not allow."""
    home = storage.local_path(plan.private_uri) if plan.private_uri else None
    uploads = storage.local_path(plan.uploads_uri)
    allowed = None if plan.allowed_uris is None else [storage.local_path(uri) for uri in plan.allowed_uris]

    def check(path: Path, uri: str) -> None:
        storage.refuse_private(path, uri, home, uploads)
        if allowed is not None:
            storage.refuse_outside(path, uri, allowed)

    return check
