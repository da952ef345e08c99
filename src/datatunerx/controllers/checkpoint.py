"""LLMCheckpoint: Ready while its files are what they were; takes them along when it goes, unless pinned."""

from datatunerx import storage
from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.exports import delete_exports, follow_exports, follow_rerun
from datatunerx.controllers.objects import FILES, draft, hold, release, write_status
from datatunerx.controllers.users import users_of
from datatunerx.resources.enums import ScoringPhase
from datatunerx.resources.finetune import Finetune
from datatunerx.resources.outcome import LLMCheckpoint, ModelRef, Scoring
from datatunerx.runs import manifest
from datatunerx.runs.compile import output_uri
from datatunerx.runs.files import in_folder

MANIFEST_BYTES = 1 << 20


class CheckpointReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        checkpoint = context.world.get(LLMCheckpoint, *key)
        if checkpoint is None:
            return None
        if checkpoint.metadata.deletion_timestamp:
            if users := self._users(checkpoint):
                wanted = draft(checkpoint)
                wanted.status.used_by = users
                message = f"deleted when these are done or deleted: {', '.join(users[:20])}"
                wanted.status.set_condition("InUse", True, "InUse", message)
                await write_status(context, checkpoint, wanted)
                return None
            self._pin(checkpoint)
            self._delete_files(checkpoint)
            delete_exports(checkpoint, context.settings.root_uri)
            await release(context, checkpoint, FILES)
            return None
        if not await hold(context, checkpoint, FILES):
            return None
        self._pin(checkpoint)
        wanted = draft(checkpoint)
        status = wanted.status
        if damage := damage_of(checkpoint):
            status.set_condition("Ready", False, *damage)
        else:
            status.set_condition("Ready", True, "Whole")
            await follow_exports(context, checkpoint, wanted)
            await follow_rerun(context, checkpoint, wanted)
        status.size = f"{checkpoint.spec.bytes / 1e6:,.1f} MB" if checkpoint.spec.bytes else None
        scoring = self._scoring(checkpoint)
        if scoring:
            status.metric, status.score = scoring.status.metric, scoring.status.score
        status.used_by = self._users(checkpoint)
        await write_status(context, checkpoint, wanted)
        return None

    def _users(self, checkpoint: LLMCheckpoint) -> list[str]:
        """Kind/name of each unfinished user; also the job's own Scoring, which reads the files."""
        name, namespace = checkpoint.metadata.name, checkpoint.metadata.namespace
        measuring = {
            f"Scoring/{scoring.metadata.name}"
            for scoring in self._context.world.all(Scoring, namespace)
            if scoring.spec.model == ModelRef(name=name)
            and scoring.status.phase in (ScoringPhase.PENDING, ScoringPhase.RUNNING)
            and not scoring.metadata.deletion_timestamp
        }
        return sorted(measuring | set(users_of(self._context.world, checkpoint)))[:1000]

    def _scoring(self, checkpoint: LLMCheckpoint) -> Scoring | None:
        """The job's own score, else the first by name."""
        name = checkpoint.metadata.name
        found = [
            scoring
            for scoring in self._context.world.all(Scoring, checkpoint.metadata.namespace)
            if scoring.spec.model == ModelRef(name=name) and scoring.status.phase is ScoringPhase.SUCCEEDED
        ]
        return next((s for s in found if s.metadata.name == name), found[0] if found else None)

    def _pin(self, checkpoint: LLMCheckpoint) -> None:
        """Tell the worker's retention, by a file in the checkpoint; one that lies elsewhere is not ours."""
        uri, artifacts = checkpoint.spec.uri, f"{self._context.settings.root_uri}/artifacts"
        if storage.local_path(artifacts) not in storage.local_path(uri).parents:
            return
        mark, me = in_folder(uri, manifest.PINNED), checkpoint.metadata.uid
        # Several objects may speak of one checkpoint, and each takes back only its own pin.
        holders = set(storage.read_bytes(mark).decode().split()) if storage.exists(mark) else set()
        wanted = holders | {me} if checkpoint.spec.pinned else holders - {me}
        if not wanted and holders:
            storage.delete_tree(mark, under=artifacts)
        elif wanted != holders and storage.exists(uri):
            storage.write_atomic(mark, "\n".join(sorted(wanted)).encode())

    def _delete_files(self, checkpoint: LLMCheckpoint) -> None:
        root = self._context.settings.root_uri
        owners = [owner.uid for owner in checkpoint.metadata.owner_references]
        for uid in owners or self._left_behind_by(checkpoint):
            folder = output_uri(root, uid)
            if lies_in(checkpoint, folder) and not is_pinned(folder):  # elsewhere it is not ours to delete
                storage.delete_tree(folder, under=f"{root}/artifacts")

    def _left_behind_by(self, checkpoint: LLMCheckpoint) -> list[str]:
        """UID of the training that is gone and has left its files to this checkpoint alone."""
        world, artifacts = self._context.world, f"{self._context.settings.root_uri}/artifacts"
        if not lies_in(checkpoint, artifacts):
            return []
        place = storage.local_path(checkpoint.spec.uri).relative_to(storage.local_path(artifacts))
        uid, me = place.parts[0], checkpoint.metadata.uid
        others = [other for other in world.all(LLMCheckpoint, None) if other.metadata.uid != me]
        shared = any(lies_in(other, f"{artifacts}/{uid}") for other in others)
        lives = any(finetune.metadata.uid == uid for finetune in world.all(Finetune, None))
        return [] if shared or lives else [uid]


def lies_in(checkpoint: LLMCheckpoint, folder: str) -> bool:
    """Whether its files lie below a folder of this machine; both may be written as a path or as a URI."""
    try:
        return storage.local_path(folder) in storage.local_path(checkpoint.spec.uri).parents
    except storage.Refused:
        return False


def is_pinned(folder: str) -> bool:
    """Whether a checkpoint in a training's folder is pinned, also by an object that is gone by now."""
    return any(storage.local_path(folder).glob(f"*/{manifest.PINNED}"))


def damage_of(checkpoint: LLMCheckpoint) -> tuple[str, str] | None:
    """Reason and message if its files are not those that were written, by names and sizes; else None."""
    uri, wanted = checkpoint.spec.uri, checkpoint.spec.manifest_digest
    if not storage.exists(uri):
        return "FilesMissing", f"nothing is at {uri} any more; train it again"
    folder = storage.local_path(uri)
    try:
        found = manifest.parse(storage.read_bytes(str(folder / manifest.MANIFEST), MANIFEST_BYTES))
    except (storage.Missing, storage.TooLarge):
        found = None
    if found is None:
        return "FilesDamaged", f"{uri} has no readable {manifest.MANIFEST}; train it again"
    if wanted and found.digest != wanted:
        return "FilesChanged", f"{uri} holds another checkpoint than was published; train it again"
    for name, size in found.sizes.items():
        path = folder / name
        if not path.is_file():
            return "FilesMissing", f"{name} is missing in {uri}; train it again"
        if path.stat().st_size != size:
            return "FilesDamaged", f"{name} in {uri} is not {size} bytes long any more; train it again"
    return None
