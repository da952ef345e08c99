"""An adapter added into the weights of its base: a model of its own, in Hugging Face's layout.

The sum is made in float32 and file by file, so that no more than one file's weights are in memory.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from datatunerx.modeling.peft_format import CONFIG, WEIGHTS, UnreadableAdapter, read_shape
from datatunerx.modeling.sources import INDEX, check_folder

PREFIX = "base_model.model."
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises OSError where no space is left, which safetensors says in words only."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error


class CannotMerge(ValueError):
    """A base or an adapter that cannot be added up; the message says why."""


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    stop_ids: list[int] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Write base + adapter into the folder `out`, with the tokenizer and template stored with the adapter.

    `dtype` None keeps the base's own. `stop_ids` are written as what ends an answer.

    Raises `CannotMerge` (a quantised base, an adapter that fits another base) and `UnreadableAdapter`.
    """
    check_folder(base, str(base))
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config"):
        raise CannotMerge(f"{base}: the base is quantised; adapters are merged into unquantised weights only")
    updates = _Updates(adapter)
    sizes = 0
    for path in sorted(base.glob("*.safetensors")):
        tell(f"merging into {path.name}")
        tensors = {name: _merged(name, value, updates, dtype) for name, value in load_file(path).items()}
        sizes += sum(value.numel() * value.element_size() for value in tensors.values())
        _save(tensors, out / path.name)
    if updates.left:
        raise CannotMerge(f"{adapter}: {sorted(updates.left)[0]} fits no weight of {base}")
    if (base / INDEX).is_file():
        index = json.loads((base / INDEX).read_text(encoding="utf-8"))
        index.setdefault("metadata", {})["total_size"] = sizes
        (out / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_generation(base, out, stop_ids)
    copy_tokenizer(adapter, base, out)


class _Updates:
    """An adapter's changes by the name of the weight that each is added to."""

    def __init__(self, folder: Path) -> None:
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise UnreadableAdapter(f"{folder}: no {name}; this is no adapter in PEFT's format")
        shape = read_shape(folder / CONFIG)
        self._scale = shape.alpha / shape.rank
        self._tensors: Mapping[str, Tensor] = load_file(folder / WEIGHTS)
        self.left = {
            name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            for name in self._tensors
            if name.endswith(".lora_A.weight")
        }

    def take(self, layer: str) -> Tensor:
        """What to add, [O, D] in float32."""
        a_RD, b_OR = (self._tensors[f"{PREFIX}{layer}.lora_{which}.weight"].float() for which in "AB")
        self.left.discard(layer)
        return (b_OR @ a_RD) * self._scale


def _merged(name: str, weight: Tensor, updates: _Updates, dtype: torch.dtype | None) -> Tensor:
    layer = name.removesuffix(".weight")
    if layer in updates.left:
        if weight.dtype not in FLOATS:
            raise CannotMerge(f"{name} is {weight.dtype}; adapters are merged into unquantised weights only")
        change = updates.take(layer)
        if change.shape != weight.shape:
            raise CannotMerge(f"{name} is {tuple(weight.shape)}, the adapter's is {tuple(change.shape)}")
        # float64 stays: what is less exact than float32 is added up in float32
        weight = (weight.to(torch.promote_types(weight.dtype, torch.float32)) + change).to(weight.dtype)
    return weight.to(dtype) if dtype is not None and weight.is_floating_point() else weight


def _write_generation(base: Path, out: Path, stop_ids: list[int] | None) -> None:
    path = base / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if stop_ids:
        settings["eos_token_id"] = stop_ids if len(stop_ids) > 1 else stop_ids[0]
    (out / "generation_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def copy_tokenizer(adapter: Path, base: Path, out: Path) -> None:
    """The tokenizer and template that the adapter was trained with: its own, where it brought them."""
    source = adapter if (adapter / "tokenizer.json").is_file() else base
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
