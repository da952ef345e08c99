"""What was said to this run since the last look."""

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.runs import Command, files
from datatunerx.worker.journal import Journal

COMMAND_BYTES = 65536


class Commands:
    """Reads each command file once; cheap enough to be asked after every step."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._folder = journal.uri(files.COMMANDS)
        self._seen: set[str] = set()

    def new(self) -> list[Command]:
        """In the order of their names. A file that is no command is told of and passed over."""
        found = []
        for name in storage.list_dir(self._folder):
            if name in self._seen or not name.endswith(".json"):
                continue
            self._seen.add(name)
            try:
                data = storage.read_bytes(storage.join(self._folder, name), limit=COMMAND_BYTES)
                found.append(Command.model_validate_json(data))
            except (storage.StorageError, ValidationError, OSError) as error:
                self._journal.warn(
                    f"{name} is no command and was not followed: {' '.join(str(error).split())}"
                )
        return found
