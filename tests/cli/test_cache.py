"""Which caches are cleaned: never what is used, the least recently used first, no more than asked."""

from pathlib import Path

import pytest

from datatunerx.cli.cache import Held, size, to_remove
from datatunerx.cli.cache import _bytes as bytes_of
from datatunerx.cli.cache import _span as span
from datatunerx.cli.errors import BadInput
from datatunerx.storage.inventory import Entry

DAY = 86400.0
NOW = 100 * DAY


def held(name: str, days_ago: float, *users: str, kind: str = "tokens") -> Held:
    return Held(Entry(kind, Path("/data") / name, 100, NOW - days_ago * DAY), users)


THINGS = [held("new", 1), held("old", 9), held("used", 30, "Dataset/a"), held("older", 20)]


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_what_is_used_stays_however_old_it_is() -> None:
    assert names(to_remove(THINGS, NOW, 0, None)) == ["older", "old", "new"]
    assert names(to_remove(THINGS, NOW, 7 * DAY, None)) == ["older", "old"]


def test_a_limit_takes_the_oldest_until_it_fits_and_no_more() -> None:
    assert names(to_remove(THINGS, NOW, 0, 400)) == []
    assert names(to_remove(THINGS, NOW, 0, 250)) == ["older", "old"]
    assert names(to_remove(THINGS, NOW, 0, 0)) == ["older", "old", "new"]


def test_what_is_being_made_is_left_to_whoever_makes_it() -> None:
    making = [held("now", 0.01, kind="unfinished"), held("left", 1, kind="unfinished")]
    assert names(to_remove(making, NOW, 0, None)) == ["left"]


def test_sizes_and_times_are_read_as_people_write_them() -> None:
    assert [bytes_of(text) for text in ("20GB", "1.5 kb", "7", "2GiB")] == [20 * 10**9, 1500, 7, 2 << 30]
    assert [span(text) for text in ("7d", "12h", "2w", "5m")] == [7 * DAY, 43200, 14 * DAY, 300]
    assert [size(n) for n in (0, 999, 1500, 20 * 10**9)] == ["0 B", "999 B", "1.5 kB", "20.0 GB"]
    for wrong in ("much", "-1GB", "7d"):
        with pytest.raises(BadInput, match="--limit"):
            bytes_of(wrong)
    with pytest.raises(BadInput, match="--older-than"):
        span("7")
