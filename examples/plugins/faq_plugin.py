"""FAQ texts into conversations: a line `Q: ...`, then a line `A: ...`, and so on."""

from collections.abc import Iterator, Mapping
from typing import Any

from datatunerx.plugins import Call, DataPlugin, hookimpl


def make(call: Call) -> Iterator[Mapping[str, Any]]:
    """One row a question. What is raised here is what the user reads in the Dataset's Ready condition."""
    for number, path in enumerate(call.files):
        call.tell(number, len(call.files), "files")
        question = ""
        for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            mark, _, said = line.partition(":")
            if mark == "Q":
                question = said.strip()
            elif mark == "A" and question:
                yield {
                    "messages": [
                        {"role": "system", "content": call.parameters["system"]},
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": said.strip()},
                    ]
                }
                question = ""
            elif mark == "A":
                raise ValueError(f"{path.name}:{line_number}: an answer to no question; write Q: above it")
            elif line.strip():
                call.leave_out("neither Q: nor A:", f"{path.name}:{line_number}")


PARAMETERS = {
    "type": "object",
    "properties": {"system": {"type": "string", "minLength": 1}},
    "required": ["system"],
    "additionalProperties": False,
}


@hookimpl
def data_plugins() -> Mapping[str, DataPlugin]:
    return {"faq": DataPlugin(make, "Conversations from lines of Q: and A:.", PARAMETERS)}
