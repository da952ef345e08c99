"""How far a pass over rows is goes into the run's events: rows, rows a second, percent, seconds to go."""

import re

from datatunerx.runs import EventType
from datatunerx.worker import telling as telling_module
from datatunerx.worker.telling import telling


class Kept:
    """A journal that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def write(self, event) -> None:
        assert event.type is EventType.ACTIVITY
        self.said.append(event.activity)


def test_a_pass_is_told_with_rows_rate_percent_and_time_to_go(monkeypatch):
    monkeypatch.setattr(telling_module, "TELL_SECONDS", 0)
    journal = Kept()
    tell = telling(journal, "dataset many")
    tell(250, 100.0, 1000, "looking for near copies in")
    tell(7, 3.5, 0, "reading")
    assert journal.said == [
        "looking for near copies in dataset many: 250 of about 1,000 rows, 100 a second, 25 %, 8 s to go",
        "reading dataset many: 7 rows, 4 a second",
    ]


def test_a_new_pass_is_told_at_once_and_the_same_one_now_and_then():
    journal = Kept()
    tell = telling(journal, "many")
    for doing in ("dividing the rows of", "dividing the rows of", "tokenising", "tokenising"):
        tell(1, 1.0, 2, doing)
    assert [re.match("[a-z ]+", said)[0] for said in journal.said] == [
        "dividing the rows of many",
        "tokenising many",
    ]
