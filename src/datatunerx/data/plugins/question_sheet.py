"""Questions and answers from a sheet with two columns (CSV, TSV, XLSX) into conversations."""

from collections.abc import Iterator, Mapping
from typing import Any

from datatunerx.data.errors import DataError, Problem
from datatunerx.data.parse import ALL_COLUMNS, raw_rows
from datatunerx.plugins import Call, DataPlugin
from datatunerx.plugins.hooks import Row

QUESTIONS = ("question", "questions", "q", "prompt", "ask", "问题", "提问")
ANSWERS = ("answer", "answers", "a", "reply", "response", "答案", "回答")
PARAMETERS = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "minLength": 1, "description": "Name of the column of questions."},
        "answer": {"type": "string", "minLength": 1, "description": "Name of the column of answers."},
        "system": {"type": "string", "description": "What the system says before each question."},
    },
    "additionalProperties": False,
}


def make(call: Call) -> Iterator[Row]:
    """`messages` of each row that has both; the others are counted with their place."""
    system = call.parameters.get("system")
    before = [{"role": "system", "content": system}] if system else []
    done = 0
    for path in call.files:
        columns: tuple[str, str] | None = None
        for row in raw_rows(str(path), ALL_COLUMNS):
            place, done = f"{path.name}:{row.line}", done + 1
            call.tell(done, None, "rows")
            if isinstance(row.value, Problem):
                call.leave_out(row.value.reason, place)
                continue
            columns = columns or _columns(row.value, call.parameters, path.name)
            question, answer = (_said(row.value.get(name)) for name in columns)
            if not question or not answer:
                call.leave_out("no answer" if question else "no question", place)
                continue
            yield {
                "messages": [
                    *before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}
                ]
            }  # fmt: skip


def _columns(row: Mapping[str, Any], given: Mapping[str, Any], file: str) -> tuple[str, str]:
    """The names of the two columns: those given, those that are called so, or the only two there are."""
    names = [str(name) for name in row]
    found = []
    for part, known in (("question", QUESTIONS), ("answer", ANSWERS)):
        asked = given.get(part)
        if asked is not None and asked not in names:
            have = f"its columns are {', '.join(names[:20])}"
            raise DataError(f"there is no column {asked!r}; {have}", file, field=f"parameters.{part}")
        found.append(asked or next((name for name in names if name.strip().lower() in known), None))
    if found == [None, None] and len(names) == 2:
        found = [*names]
    if found[0] is None or found[1] is None:
        fix = "set the parameters question and answer to the names of the two columns"
        raise DataError(f"which columns are meant? It has {', '.join(names[:20])}", file, fix=fix)
    return found[0], found[1]


def _said(value: Any) -> str:
    return "" if value is None else str(value).strip()


PLUGIN = DataPlugin(
    make, "Conversations from a sheet with a column of questions and one of answers.", PARAMETERS
)
