"""What can be said to a running worker: small files in `<run folder>/commands/`, looked at after each step.

A command's file name is made from what it says, so saying it twice is saying it once.
"""

from enum import StrEnum

from datatunerx.resources.enums import StopMode
from datatunerx.resources.wire import Wire


class Verb(StrEnum):
    STOP = "stop"
    """End one job for good. Of a serving run, whose job is empty, the run: `keep` ends the answers first."""
    SUSPEND = "suspend"
    """Save one job and let it leave; it can be taken up again."""
    SAVE = "save"
    EVALUATE = "evaluate"


class Command(Wire):
    verb: Verb
    job: str
    """Name of the Finetune."""
    mode: StopMode = StopMode.KEEP
    """Of a stop."""
    nonce: str = ""
    """Tells a second save from the first."""

    @property
    def file_name(self) -> str:
        return "-".join(part for part in (self.verb.value, self.job, self.nonce) if part) + ".json"
