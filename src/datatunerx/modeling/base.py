"""One frozen base model, loaded once, through which streams of many adapters pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datatunerx.modeling.attention import NAME as ATTENTION
from datatunerx.modeling.frozen import FrozenRmsNorm, FrozenWeight, silu_times
from datatunerx.modeling.fused import FusedLinear, Holder
from datatunerx.modeling.heap import keep_freed_memory
from datatunerx.modeling.sources import check_folder
from datatunerx.modeling.stream import Stream


@dataclass
class Base:
    """A frozen decoder. `pass_through` gives hidden states, `head` gives logits."""

    path: Path
    config: Any
    device: torch.device
    dtype: torch.dtype
    widths: dict[str, tuple[int, int]] = field(repr=False)
    """(in, out) of every linear layer an adapter may change, by name."""
    head: FrozenWeight = field(repr=False)
    decoder: Any = field(repr=False)
    holder: Holder = field(repr=False)

    def pass_through(self, stream: Stream) -> Tensor:
        """Hidden states after the last norm, [T, D]."""
        self.holder.stream = stream
        try:
            out = self.decoder(
                input_ids=stream.ids_T[None],
                position_ids=stream.positions_T[None],
                use_cache=False,
                stream=stream,
            )
        finally:
            self.holder.stream = None
        hidden: Tensor = out.last_hidden_state[0]
        return hidden


def load_base(path: str | Path, *, precision: str = "float32", device: str = "cpu") -> Base:
    """Load a folder of safetensors as a frozen base.

    `precision` is a torch type name (float32, bfloat16, float16, float64). Raises `UnusableModel`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    path = Path(path)
    check_folder(path, str(path))
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    dtype = getattr(torch, precision)
    if device == "cpu":
        keep_freed_memory()
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            attn_implementation=ATTENTION,
            local_files_only=True,
            use_safetensors=True,
        )
    network: Any = model
    return freeze(network.to(device).eval(), path)


def freeze(model: Any, path: Path = Path(".")) -> Base:
    """Put the engine's layers in the place of a transformers model's own. The model is changed."""
    model.requires_grad_(False)
    model.set_attn_implementation(ATTENTION)
    parameter = next(model.parameters())
    holder = Holder(parameter.device, parameter.dtype)
    head = model.get_output_embeddings()
    widths: dict[str, tuple[int, int]] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not head:
            model.set_submodule(name, FusedLinear(module, name, len(widths), holder))
            widths[name] = (module.in_features, module.out_features)
        elif type(module).__name__.endswith("RMSNorm"):
            weight: Any = module.weight
            model.set_submodule(name, FrozenRmsNorm(weight.detach(), float(module.variance_epsilon)))
        elif type(module).__name__.endswith("MLP") and model.config.hidden_act == "silu":
            module.forward = _mlp(module)
    return Base(
        path=path,
        config=model.config,
        device=parameter.device,
        dtype=parameter.dtype,
        widths=widths,
        head=FrozenWeight(head.weight.detach(), head.bias),
        decoder=model.get_decoder(),
        holder=holder,
    )


def _mlp(module: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        down: Tensor = module.down_proj(silu_times(module.gate_proj(x), module.up_proj(x)))
        return down

    return forward


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars: a worker's output is a log."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer stored with a model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True)
