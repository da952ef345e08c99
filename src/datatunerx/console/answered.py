"""What a model answered to the rows it was scored on, some at a time, read by byte offset."""

import json
from typing import Any, NamedTuple

from datatunerx.client import Api
from datatunerx.client.api import path_of
from datatunerx.client.errors import from_answer
from datatunerx.console import kinds

Json = dict[str, Any]
SHOWN = 25
MAX_READS = 8
"""Parts that one page may look through for answers that are not their reference."""


class Answered(NamedTuple):
    rows: list[Json]
    next: int | None
    """Where the next page begins; None at the end."""


async def answered(api: Api, namespace: str, scoring: str, offset: int, *, unlike: bool) -> Answered | None:
    """The next rows from a place on; with `unlike` those only that do not say what they should.

    None where there are no answers to be had, or none that the caller may see.
    """
    where = path_of(kinds.PLURALS["Scoring"], namespace, scoring, "predictions")
    rows: list[Json] = []
    for _ in range(MAX_READS):
        answer = await api.transport.request("GET", where, query={"offset": str(offset)})
        if answer.status in (403, 404, 501):
            return None
        if answer.status >= 300:
            raise from_answer(answer.status, answer.body)
        for line in answer.body.splitlines(keepends=True):
            if len(rows) == SHOWN:
                return Answered(rows, offset)
            offset += len(line)
            row = json.loads(line)
            row["same"] = row["answer"].strip() == row["reference"].strip()
            if not (unlike and row["same"]):
                rows.append(row)
        if offset >= int(answer.headers["x-datatunerx-size"]):
            return Answered(rows, None)
        if not answer.body:
            break  # a line longer than a part
    return Answered(rows, offset)
