"""Large data is checked and tokenised in little memory, which hardly grows with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, threading, time
from pathlib import Path
import psutil
from datatunerx.data import inspect, tokenise
from datatunerx.data.render import _child
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.resources.material import AutoSplit
from datatunerx.runs import DataFiles
file, model, cache, share, checked, processes, every = sys.argv[1:]
share, many = float(share), int(processes) or None
files = DataFiles(name="d", splits={Split.TRAIN: [file]}, auto_split=AutoSplit(validate=share, test=share))
every, peak, counted, done = float(every), 0, 0, threading.Event()
def held():
    "Memory of all processes; what they share counts once."
    found = 0
    me = psutil.Process()
    for one in [me, *me.children(recursive=True)]:
        try:
            found += one.memory_full_info().pss
        except psutil.Error:
            continue
    return found
def look():
    global peak, counted
    while not done.wait(every):
        peak, counted = max(peak, held()), counted + 1
threading.Thread(target=look, daemon=True).start()
told = [0, time.monotonic()]
def tell(rows, speed, total, doing):
    if time.monotonic() - told[1] > 30:
        told[1] = time.monotonic()
        text = f"{doing}: {rows:,} rows, {speed:,.0f} a second, peak {peak >> 20} MiB"
        print(text, file=sys.stderr, flush=True)
seconds = []
for work in ("check", "tokenise"):
    began = time.monotonic()
    if work == "check" and checked == "yes":
        inspect(files, Path(model), on_progress=tell, processes=many)
    elif work == "tokenise":
        rows = tokenise(files, Split.TRAIN, tokenizer_dir=Path(model), template=None, cutoff_length=512,
                        too_long=TooLong.TRUNCATE, untrainable=Untrainable.DROP, cache_dir=Path(cache),
                        on_progress=tell, processes=many)
    seconds.append(time.monotonic() - began)
done.set()
_child().close()
assert counted  # else nothing was measured
# The kernel's own count misses nothing. That of getrusage begins with the memory of whoever started this.
own = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10
print(len(rows), max(peak, own) / 2**20, *seconds)
"""
SAID = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "What", "is", "Paris"]


def written(path: Path, megabytes: int) -> int:
    """Conversations of about 1 KB, none twice; how many."""
    texts = []
    for start in range(len(SAID)):
        words = [f"{SAID[(start * 7 + n * n) % len(SAID)]}{n % 9}" for n in range(170)]
        turns = [
            {"role": "user", "content": f"COUNT {' '.join(words[:50])}"},
            {"role": "assistant", "content": " ".join(words[50:])},
        ]
        texts.append(json.dumps({"messages": turns}).partition("COUNT"))
    count = size = 0
    with path.open("w") as file:
        while size < megabytes << 20:
            before, _, after = texts[count % len(texts)]
            size += file.write(f"{before}{count}{after}\n")
            count += 1
    return count


def measured(
    path: Path,
    model: Path,
    cache: Path,
    *,
    checked: bool,
    share: float = 0,
    processes: int = 0,
    every: float = 0.05,
) -> tuple[int, float, float, float]:
    """Rows, peak MiB of all processes, seconds of the check and of tokenising. They are weighed every so many
    seconds, which is work, too: the kernel counts the pages of each."""
    words = [sys.executable, "-c", PROGRAM, str(path), str(model), str(cache), str(share)]
    words += ["yes" if checked else "no", str(processes), str(every)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    rows, *found = done.stdout.split()
    peak, check, tokens = map(float, found)
    return int(rows), peak, check, tokens


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_times_the_data_takes_hardly_more_memory(tmp_path, tokenizer_dir):
    peaks = []
    for megabytes in (6, 24):
        path = tmp_path / f"{megabytes}.jsonl"
        count = written(path, megabytes)
        rows, peak, _, _ = measured(path, tokenizer_dir, tmp_path / "cache", checked=False, processes=2)
        assert rows == count
        peaks.append(peak)
    # The ids of 18 MB more are about 60 MB on disk: as lists in memory they would be over 400. What grows is
    # the memory of words of each process, up to its limit.
    assert peaks[1] < 400 and peaks[1] - peaks[0] < 100, peaks


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_gigabyte_is_checked_and_tokenised_within_half_a_gigabyte(tmp_path, tokenizer_dir, capsys):
    path = tmp_path / "large.jsonl"
    count = written(path, 1024)
    rows, peak, check, tokens = measured(
        path, tokenizer_dir, tmp_path / "cache", checked=True, share=0.01, every=1
    )
    with capsys.disabled():
        print(f"\n1 GiB, {count:,} rows: checked in {check:,.0f} s, tokenised in {tokens:,.0f} s,", end=" ")
        print(f"peak {peak:,.0f} MiB")
    assert count * 0.97 < rows < count and peak < 500, peak


BOOKS = """
import sys
from array import array
from pathlib import Path
import numpy as np
from datatunerx.data import inspection
from datatunerx.data.languages import Languages
from datatunerx.data.report import Tally
from datatunerx.resources.enums import Split
from datatunerx.resources.material import AutoSplit
from datatunerx.runs.plan import DataFiles
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
rows = int(sys.argv[1])
files = DataFiles(name="d", splits={Split.TRAIN: ["/none"]}, auto_split=AutoSplit(validate=0.01, test=0.01))
reading, random = inspection._Reading(files, None, None), np.random.default_rng(1)
print(peak())
for start in range(0, rows, 1000):  # as if they had been read, a piece of a mebibyte at a time
    tally, division = Tally(), inspection._division(files)
    tally.read = tally.kept[Split.TRAIN] = 1000
    tally._lengths = array("i", [500]) * 1000
    contents = random.integers(0, 1 << 63, 1000, dtype=np.uint64)
    division._places = array("Q", (contents + np.uint64(1)).tobytes())
    division._strata, division._numbers = array("I", [0]) * 1000, {"": 0}
    said = array("Q", contents.tobytes()), b"\\1" * 1000
    reading.take(Split.TRAIN, inspection.Block(1 << 20, tally, *said, division, Languages(), []))
print(peak())
inspection._Reading._hold_against = lambda self, index, made, processes: {}  # there are no files
inspection.recognised = lambda files: "messages"
report = reading.report(1)
print(peak(), report.read, report.overlap.held_out)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_kept_of_ten_gigabytes_of_rows_leaves_room_for_those_who_read_them():
    """Rows of 1 KB are ten million. What is told of each is kept until all are read; then sorted."""
    rows = 2_000_000
    done = subprocess.run(
        [sys.executable, "-c", BOOKS, str(rows)], capture_output=True, text=True, check=True
    )
    start, read, reported, said, held_out = map(float, done.stdout.split())
    assert (said, held_out) == (rows, rows * 0.02)
    a_row = [(peak - start) * 2**20 / rows for peak in (read, reported)]
    assert a_row[0] < 32 and a_row[1] < 64, a_row  # bytes: 10,700,000 rows of them are 0.33 and 0.65 GB
