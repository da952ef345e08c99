"""A training tells what became of its rows: cut at the side, or split, as its parameters say."""

import pytest

from datatunerx.data import ChatTemplate
from datatunerx.runs import EventType

CUTOFF = 40


@pytest.mark.slow
def test_each_job_reports_its_rows_as_its_own_length_policy_leaves_them(room):
    rows = [
        {
            "messages": [
                {"role": "user", "content": "say it"},
                {"role": "assistant", "content": "so " * length},
            ]
        }
        for length in (1, 2, 30, 45)
    ]
    data = room.data(rows=rows)
    ways = {
        "left": {"tooLong": "truncate", "truncateSide": "left"},
        "right": {"tooLong": "truncate"},
        "split": {"tooLong": "split"},
    }
    jobs = [
        room.job(name, data, maxSteps=1, cutoffLength=CUTOFF, batchSize=2, **way)
        for name, way in ways.items()
    ]
    code, result = room.run(plan := room.tune([data], jobs))
    assert code == 0, room.log(plan)

    chat = ChatTemplate.load(room.model_dir)
    lengths = [len(chat.encode(row["messages"]).ids) for row in rows]
    long = [length for length in lengths if length > CUTOFF]
    assert len(long) == 2
    told = {event.job: event.report for event in room.events(plan) if event.type is EventType.DATA}
    for name in ("left", "right"):
        assert (told[name].read, told[name].kept, told[name].truncated, told[name].split) == (4, 4, 2, 0)
        assert told[name].cut_tokens == sum(long) - 2 * CUTOFF
        assert told[name].tokens.turns == 4
    assert (told["left"].tokens.turns_ended, told["right"].tokens.turns_ended) == (4, 2)
    split = told["split"]
    assert (split.read, split.kept, split.truncated, split.split) == (4, 4, 0, 2)
    assert split.tokens.rows > 4 and split.tokens.turns_ended == 4
    assert split.tokens.total + split.cut_tokens == sum(lengths)
    assert all(result.jobs[name].phase.value == "Succeeded" for name in ways)
