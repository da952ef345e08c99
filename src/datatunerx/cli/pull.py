"""`dtx pull`: an export from the server to this machine, gone on with where it broke off."""

import time
from pathlib import Path

from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.export import checkpoint_named
from datatunerx.client import Api
from datatunerx.client.exports import Export, Progress, fetch, files
from datatunerx.resources import LLMCheckpoint
from datatunerx.resources.enums import ExportPhase

STEP_SECONDS = 2.0
"""Between two lines of progress."""


async def pull(
    api: Api, name: str, export: str | None, namespace: str, *, to: Path | None, file: str | None
) -> Exit:
    """Fetch an export, or one `file` of it, into a folder; files that are there whole are left alone."""
    checkpoint = await checkpoint_named(api, name, namespace)
    wanted = Export(checkpoint.metadata.name, export or _only(checkpoint), namespace)
    found = await files(api, wanted)
    chosen = [each for each in found if file in (None, each.path)]
    if not chosen:
        raise BadInput(f"--file {file}: the export has {', '.join(each.path for each in found)}")
    folder = (to or Path(f"{wanted.checkpoint}-{wanted.name}")).expanduser()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--to {folder}: is no folder")
    try:
        for each in chosen:
            await fetch(api, wanted, each, folder, on_progress=_told())
    except OSError as error:
        raise CommandError(f"{error.filename or folder}: {error.strerror}") from None
    size = sum(each.size for each in chosen)
    sealed = sum(bool(each.sha256) for each in chosen)
    print(f"{folder}: {len(chosen)} files, {size / 1e6:,.1f} MB; SHA-256 of {sealed} are those of the record")
    return Exit.OK


def _only(checkpoint: LLMCheckpoint) -> str:
    """The export that is meant where none is named."""
    name = checkpoint.metadata.name
    there = [each.name for each in checkpoint.status.exports if each.phase is ExportPhase.SUCCEEDED]
    if len(there) == 1:
        return there[0]
    if there:
        raise BadInput(f"{name} has several exports; name one: {', '.join(there)}")
    raise CommandError(f"{name} has no export yet; make one: dtx export {name} --to gguf")


def _told() -> Progress:
    last = time.monotonic()

    def tell(path: str, here: int, whole: int) -> None:
        nonlocal last
        if time.monotonic() - last >= STEP_SECONDS:
            last = time.monotonic()
            print(f"  {path}: {here / 1e6:,.1f} of {whole / 1e6:,.1f} MB", flush=True)

    return tell
