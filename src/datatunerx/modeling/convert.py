"""A base model made ready: found, checked, converted once if need be, and described.

A GGUF file is dequantised into the store, in float32 up to a billion weights: 4-bit values times their 16-bit
scale need 15 bits of mantissa, which no 16-bit type has. Larger models are stored in float16.
"""

import fcntl
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatunerx import storage
from datatunerx.modeling.intact import MANIFEST, digest, marks, parts, remember
from datatunerx.modeling.sources import LocalFiles, UnusableModel, check_folder, resolve
from datatunerx.storage.remote import Credentials

CONVERTER = 1
"""Changes when a conversion would come out differently."""
FLOAT32_UP_TO = 1_000_000_000


@dataclass(frozen=True)
class ModelReport:
    """What a base model is."""

    path: Path
    """Folder with config, safetensors and tokenizer."""
    digest: str
    """SHA-256 over the digests of its files."""
    architecture: str
    parameters: int
    bytes: int
    """Of its weights on disk."""
    dtype: str
    context_length: int
    """Tokens it can attend to."""
    layers: int
    cache_width: int
    """Numbers kept for each token of a conversation: its keys and values in every layer."""
    hidden_size: int
    stop_ids: list[int]
    template: str | None
    template_source: str
    """The file it was found in; empty without one."""
    warnings: list[str]


def prepare_model(
    source: str,
    store: Path,
    credentials: Credentials | None = None,
    tell: Callable[[str], None] = lambda text: None,
    check_place: storage.CheckPlace = lambda path, uri: None,
) -> ModelReport:
    """Make a source loadable and describe it. Doing it again, or twice at once, does it once.

    A folder of safetensors is used where it lies. `check_place` is called with every local file,
    and may refuse it. Raises `UnusableModel`.
    """
    store.mkdir(parents=True, exist_ok=True)
    files = resolve(source, store / "hub", credentials, tell, check_place)
    folder = _converted(files, source, store) if files.is_gguf else files.path
    seen = marks(folder)  # before they are read: what changes meanwhile is noticed later
    report = describe(folder, source)
    remember(report.path, report.digest, seen, store)
    return report


def _converted(files: LocalFiles, source: str, store: Path) -> Path:
    key = hashlib.sha256(f"{storage.sha256_of(files.path)} gguf {CONVERTER}".encode()).hexdigest()
    return _made_once(store / key[:32], source, lambda folder: _convert(files.path, source, folder))


def merged(
    base: Path, adapter: Path, stop_ids: list[int], mark: str, store: Path, tell: Callable[[str], None]
) -> Path:
    """A base with an adapter added into it, as a folder of the store; `mark` names what the two hold."""
    from datatunerx.modeling.merge import merge

    key = hashlib.sha256(f"{mark} merged {CONVERTER}".encode()).hexdigest()
    store.mkdir(parents=True, exist_ok=True)
    return _made_once(
        store / key[:32],
        str(adapter),
        lambda folder: merge(base, adapter, folder, stop_ids=stop_ids, tell=tell),
    )


def _made_once(final: Path, source: str, make: Callable[[Path], None]) -> Path:
    with _locked(final.parent / f".{final.name}.lock"):
        if not (final / MANIFEST).is_file():
            hidden = final.parent / f".{final.name}.converting"
            for left in (hidden, final):
                shutil.rmtree(left, ignore_errors=True)
            hidden.mkdir()
            make(hidden)
            check_folder(hidden, source)
            manifest = {path.name: storage.sha256_of(path) for path in parts(hidden)}
            storage.publish_dir(hidden, final)
            storage.write_atomic(str(final / MANIFEST), json.dumps(manifest, indent=1).encode())
    return final


def _convert(gguf: Path, source: str, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from datatunerx.modeling.base import quiet

    try:
        weights = sum(math.prod(int(n) for n in tensor.shape) for tensor in GGUFReader(gguf).tensors)
        dtype = torch.float32 if weights <= FLOAT32_UP_TO else torch.float16
        with quiet():
            place: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=dtype, **place)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise UnusableModel(f"{source}: this GGUF file cannot be read: {error}") from error
    # its weights are plain numbers now; the mark of their origin would forbid saving them
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def describe(folder: Path, source: str = "") -> ModelReport:
    """What a folder of safetensors holds, from its files alone; no weight is loaded."""
    from datatunerx.modeling.base import load_tokenizer

    source = source or str(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes = [_header(path, source) for path in sorted(folder.glob("*.safetensors"))]
    by_dtype: dict[str, int] = {}
    for name, count in (entry for size in sizes for entry in size):
        by_dtype[name] = by_dtype.get(name, 0) + count
    try:
        tokenizer = load_tokenizer(folder)
    except (ValueError, OSError, KeyError) as error:
        raise UnusableModel(f"{source}: the tokenizer cannot be read: {error}") from error
    template, where = _template(tokenizer, folder)
    warnings = []
    if template is None:
        warnings.append("the tokenizer has no chat template; name one in the LLM's spec.template")
    return ModelReport(
        path=folder,
        digest=digest(folder),
        architecture=(config.get("architectures") or [config["model_type"]])[0],
        parameters=sum(by_dtype.values()),
        bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        dtype=max(by_dtype, key=lambda name: by_dtype[name]).lower() if by_dtype else "",
        context_length=int(config.get("max_position_embeddings", 0)),
        layers=int(config["num_hidden_layers"]),
        cache_width=_cache_width(config),
        hidden_size=int(config["hidden_size"]),
        stop_ids=stop_ids(folder, tokenizer),
        template=template,
        template_source=where,
        warnings=warnings,
    )


def _cache_width(config: dict[str, Any]) -> int:
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    return 2 * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads) * width


def stop_ids(folder: Path, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the generation settings' and the tokenizer's own."""
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = settings.get("eos_token_id")
    listed = found if isinstance(found, list) else [] if found is None else [found]
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return sorted({int(one) for one in [*listed, *own]})


def _template(tokenizer: Any, folder: Path) -> tuple[str | None, str]:
    found = tokenizer.chat_template
    if isinstance(found, dict):
        found = found.get("default")
    if not found:
        return None, ""
    own = "chat_template.jinja"
    return str(found), own if (folder / own).is_file() else "tokenizer_config.json"


def _header(path: Path, source: str) -> list[tuple[str, int]]:
    """(type, number of weights) of each tensor of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= path.stat().st_size - 8:
            raise UnusableModel(f"{source}: {path.name} is no safetensors file, or it was cut off")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise UnusableModel(f"{source}: {path.name} is no safetensors file") from error
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if path.stat().st_size != 8 + length + end:
        raise UnusableModel(f"{source}: {path.name} was cut off; fetch it again")
    return [(entry["dtype"], math.prod(entry["shape"])) for entry in tensors.values()]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
