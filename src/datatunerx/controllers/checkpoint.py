"""LLMCheckpoint: Ready while its files are there; takes them along when it is deleted, unless pinned."""

from datatunerx import storage
from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.objects import FILES, draft, hold, release, write_status
from datatunerx.controllers.users import users_of
from datatunerx.resources.enums import ScoringPhase
from datatunerx.resources.outcome import LLMCheckpoint, Scoring
from datatunerx.runs.compile import output_uri


class CheckpointReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        checkpoint = context.world.get(LLMCheckpoint, *key)
        if checkpoint is None:
            return None
        if checkpoint.metadata.deletion_timestamp:
            if not checkpoint.spec.pinned:
                self._delete_files(checkpoint)
            await release(context, checkpoint, FILES)
            return None
        if not await hold(context, checkpoint, FILES):
            return None
        wanted = draft(checkpoint)
        status = wanted.status
        if storage.exists(checkpoint.spec.uri):
            status.set_condition("Ready", True, "Whole")
        else:
            message = f"nothing is at {checkpoint.spec.uri} any more; train it again"
            status.set_condition("Ready", False, "FilesMissing", message)
        scoring = self._scoring(checkpoint)
        if scoring:
            status.metric, status.score = scoring.status.metric, scoring.status.score
        status.used_by = users_of(context.world, checkpoint)
        await write_status(context, checkpoint, wanted)
        return None

    def _scoring(self, checkpoint: LLMCheckpoint) -> Scoring | None:
        """The job's own score, else the first by name."""
        name = checkpoint.metadata.name
        found = [
            scoring
            for scoring in self._context.world.all(Scoring, checkpoint.metadata.namespace)
            if (scoring.spec.model.kind, scoring.spec.model.name) == ("LLMCheckpoint", name)
            and scoring.status.phase is ScoringPhase.SUCCEEDED
        ]
        return next((s for s in found if s.metadata.name == name), found[0] if found else None)

    def _delete_files(self, checkpoint: LLMCheckpoint) -> None:
        root = self._context.settings.root_uri
        for owner in checkpoint.metadata.owner_references:
            folder = output_uri(root, owner.uid)
            # Its place may be written as a path or as a URI; one that lies elsewhere is not ours to delete.
            if storage.local_path(folder) in storage.local_path(checkpoint.spec.uri).parents:
                storage.delete_tree(folder, under=f"{root}/artifacts")
