"""Adapters in PEFT's format, as `PeftModel` reads them."""

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from datatunerx.modeling.adapters import Adapter, AdapterShape, view_adapter
from datatunerx.modeling.base import Base

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."


class UnreadableAdapter(ValueError):
    """A folder that is no adapter this engine can use; the message says why."""


def adapter_files(adapter: Adapter, base_name: str) -> dict[str, bytes]:
    """The files of an adapter by name. `base_name` is what PEFT shows as the base model."""
    tensors = {}
    for layer, pair in adapter.pairs.items():
        tensors[f"{_PREFIX}{layer}.lora_A.weight"] = pair.a_RD.detach().cpu().contiguous()
        tensors[f"{_PREFIX}{layer}.lora_B.weight"] = pair.b_RO.detach().T.cpu().contiguous()
    shape = adapter.shape
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "lora_dropout": shape.dropout,
        "target_modules": sorted(adapter.pairs) if _partial(adapter) else _last_names(adapter),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
    }
    return {
        CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(),
        WEIGHTS: to_bytes(tensors, metadata={"format": "pt"}),
    }


def _last_names(adapter: Adapter) -> list[str]:
    return sorted({name.rsplit(".", 1)[-1] for name in adapter.pairs})


def _partial(adapter: Adapter) -> bool:
    """Whether the last names alone would also match layers that this adapter leaves alone."""
    by_layer: dict[str, set[str]] = {}
    for name in adapter.pairs:
        number = re.search(r"\.(\d+)\.", name)
        by_layer.setdefault(number.group(1) if number else "", set()).add(name.rsplit(".", 1)[-1])
    last = {name.rsplit(".", 1)[-1] for name in adapter.pairs}
    return any("." in target for target in adapter.shape.targets) or any(s != last for s in by_layer.values())


def load_adapter(folder: str | Path, base: Base, name: str = "") -> Adapter:
    """Read an adapter for `base`. Raises `UnreadableAdapter` naming the file and what does not fit."""
    folder = Path(folder)
    config_path, weights_path = folder / CONFIG, folder / WEIGHTS
    for path in (config_path, weights_path):
        if not path.is_file():
            raise UnreadableAdapter(f"{folder}: no {path.name}; this is no adapter in PEFT's format")
    shape = read_shape(config_path)
    try:
        tensors = load_file(weights_path)
    except (OSError, SafetensorError) as error:
        raise UnreadableAdapter(f"{weights_path}: cannot be read: {error}") from error
    widths = {n: base.widths[n] for n in base.widths if f"{_PREFIX}{n}.lora_A.weight" in tensors}
    fitting = {f"{_PREFIX}{layer}.lora_{which}.weight" for layer in widths for which in "AB"}
    odd = sorted(fitting ^ set(tensors))
    if odd:
        what = f"{odd[0]} fits no layer of {base.path}" if odd[0] in tensors else f"{odd[0]} is missing"
        raise UnreadableAdapter(f"{weights_path}: {what}")
    dtype = torch.float64 if base.dtype == torch.float64 else torch.float32
    size = sum(shape.rank * sum(width) for width in widths.values())
    adapter = view_adapter(
        name or folder.name, shape, widths, torch.zeros(size, dtype=dtype, device=base.device)
    )
    for layer, pair in adapter.pairs.items():
        a, b = (tensors[f"{_PREFIX}{layer}.lora_{which}.weight"] for which in "AB")
        if a.shape != pair.a_RD.shape or b.T.shape != pair.b_RO.shape:
            raise UnreadableAdapter(
                f"{weights_path}: {layer} is {tuple(a.shape)}, the base has {base.widths[layer]}"
            )
        pair.a_RD.copy_(a)
        pair.b_RO.copy_(b.T)
    return adapter


def read_shape(path: Path) -> AdapterShape:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        for key in ("use_dora", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"):
            if config.get(key):
                raise UnreadableAdapter(f"{path}: {key} is not supported")
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
            raise UnreadableAdapter(f"{path}: only LoRA without biases is supported")
        shape = AdapterShape(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            dropout=float(config.get("lora_dropout", 0.0)),
            targets=_targets(config["target_modules"]),
        )
    except UnreadableAdapter:
        raise
    except KeyError as error:
        raise UnreadableAdapter(f"{path}: {error.args[0]} is missing") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableAdapter(f"{path}: cannot be read: {error}") from error
    if shape.rank < 1:
        raise UnreadableAdapter(f"{path}: r is {shape.rank}, at least 1 is needed")
    return shape


def _targets(found: str | list[str]) -> tuple[str, ...]:
    return (found,) if isinstance(found, str) else tuple(found)
