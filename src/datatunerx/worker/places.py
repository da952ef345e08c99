"""Which files of this machine a Dataset or an LLM may name."""

from functools import partial

from datatunerx import storage
from datatunerx.runs import RunPlan


def check_place(plan: RunPlan) -> storage.CheckPlace:
    """Refuses the server's own files and the kernel's, over links too; uploads are everybody's."""
    home = storage.local_path(plan.private_uri) if plan.private_uri else None
    return partial(storage.refuse_private, home=home, uploads=storage.local_path(plan.uploads_uri))
