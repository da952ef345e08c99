"""Large data is checked and tokenised in little memory, which hardly grows with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from datatunerx.data import inspect, tokenise
from datatunerx.data.render import _child
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.resources.material import AutoSplit
from datatunerx.runs import DataFiles
file, model, cache, checked = sys.argv[1:]
files = DataFiles(name="d", splits={Split.TRAIN: [file]}, auto_split=AutoSplit(validate_=0, test=0))
began = time.monotonic()
if checked == "yes":
    inspect(files, Path(model))
rows = tokenise(files, Split.TRAIN, tokenizer_dir=Path(model), template=None, cutoff_length=512,
                too_long=TooLong.TRUNCATE, untrainable=Untrainable.DROP, cache_dir=Path(cache))
_child().close()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))  # ru_maxrss begins with the parent's
print(len(rows), int(status["VmHWM"].split()[0]) / 1024, time.monotonic() - began)
"""
SAID = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "What", "is", "Paris"]


def written(path: Path, megabytes: int) -> int:
    """Conversations of about 1 KB, none twice; how many."""
    count = 0
    with path.open("w") as file:
        while file.tell() < megabytes << 20:
            words = [f"{SAID[(count * 7 + n * n) % len(SAID)]}{n % 9}" for n in range(170)]
            turns = [
                {"role": "user", "content": f"{count} {' '.join(words[:50])}"},
                {"role": "assistant", "content": " ".join(words[50:])},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
            count += 1
    return count


def measured(path: Path, model: Path, cache: Path, *, checked: bool) -> tuple[int, float, float]:
    """Rows, peak MiB of the process, seconds."""
    words = [sys.executable, "-c", PROGRAM, str(path), str(model), str(cache), "yes" if checked else "no"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    rows, peak, seconds = done.stdout.split()
    return int(rows), float(peak), float(seconds)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_times_the_data_takes_hardly_more_memory(tmp_path, tokenizer_dir):
    peaks = []
    for megabytes in (6, 24):
        path = tmp_path / f"{megabytes}.jsonl"
        count = written(path, megabytes)
        rows, peak, _ = measured(path, tokenizer_dir, tmp_path / "cache", checked=False)
        assert rows == count
        peaks.append(peak)
    # The ids of 18 MB more are about 60 MB on disk: as lists in memory they would be over 400.
    assert peaks[1] < 400 and peaks[1] - peaks[0] < 40, peaks


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_gigabyte_is_checked_and_tokenised_within_half_a_gigabyte(tmp_path, tokenizer_dir, capsys):
    path = tmp_path / "large.jsonl"
    count = written(path, 1024)
    rows, peak, seconds = measured(path, tokenizer_dir, tmp_path / "cache", checked=True)
    with capsys.disabled():
        print(f"\n1 GiB, {rows:,} rows: {seconds:,.0f} s, peak {peak:,.0f} MiB")
    # Per row stay about 64 bytes: ten times as many take half a gigabyte more at most.
    assert rows == count and peak < 500, peak
