"""An exported model held against the base with its adapter: tokens, greedy answers, logits.

An answer is checked by giving the exported model the one that base + adapter gave, token by token: it would
give the same exactly if at each place its most likely token is the one that stands there.

Shapes: L tokens of an answer (and the stop after it), V words of the vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.base import Base, quiet
from datatunerx.modeling.generate import Decoding, Prompt, generate
from datatunerx.modeling.stream import Part, pack

ANSWER_TOKENS = 32
"""Longest answer that is compared."""


@dataclass(frozen=True)
class Asked:
    """One prompt, what base + adapter answered, and with which logits."""

    prompt: Sequence[int]
    answer: Sequence[int]
    stopped: bool
    """Whether the answer ended by a stop token."""
    logits_LV: Tensor


@dataclass(frozen=True)
class Compared:
    """How far an exported model is from base + adapter."""

    prompts: int
    differing: int
    """Prompts that are answered otherwise."""
    max_logit_difference: float


def ask(
    base: Base, adapter: Adapter | None, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int]
) -> list[Asked]:
    """What base + adapter answer, greedily."""
    given = generate(
        base, [Prompt(ids, adapter) for ids in prompts], stop_ids, Decoding(max_new_tokens=ANSWER_TOKENS)
    )
    found = []
    for prompt, answer in zip(prompts, given, strict=True):
        logits_LV = _logits(base, adapter, [*prompt, *answer.ids], answer.ids)
        found.append(Asked(prompt, answer.ids, answer.finish == "stop", logits_LV))
    return found


@torch.no_grad()
def _logits(base: Base, adapter: Adapter | None, ids: Sequence[int], answer: Sequence[int]) -> Tensor:
    stream = pack([Part(adapter, [torch.tensor(ids)])], base.device)
    hidden = base.pass_through(stream)[-len(answer) - 1 :]
    return base.head.ahead(hidden).float().cpu()


def with_transformers(model: Any) -> Callable[[Asked], Tensor]:
    """Logits of a model that transformers has loaded, at the places of an answer."""

    @torch.no_grad()
    def logits(asked: Asked) -> Tensor:
        ids = torch.tensor([[*asked.prompt, *asked.answer]], device=model.device)
        found: Tensor = model(input_ids=ids).logits[0, -len(asked.answer) - 1 :]
        return found.float().cpu()

    return logits


def with_engine(base: Base, adapter: Adapter) -> Callable[[Asked], Tensor]:
    """Logits of an adapter over its base."""
    return lambda asked: _logits(base, adapter, [*asked.prompt, *asked.answer], asked.answer)


def compare(asked: Iterable[Asked], logits: Callable[[Asked], Tensor], stop_ids: Sequence[int]) -> Compared:
    """Ask the exported model what base + adapter were asked."""
    prompts = differing = 0
    furthest = 0.0
    for one in asked:
        found_LV = logits(one)
        width = min(found_LV.shape[1], one.logits_LV.shape[1])
        furthest = max(furthest, float((found_LV[:, :width] - one.logits_LV[:, :width]).abs().max()))
        likeliest = found_LV.argmax(dim=-1).tolist()
        same = likeliest[:-1] == list(one.answer) and (not one.stopped or likeliest[-1] in stop_ids)
        prompts, differing = prompts + 1, differing + (not same)
    return Compared(prompts, differing, furthest)


def load_folder(folder: Path, dtype: torch.dtype | None, gguf_file: str | None = None) -> Any:
    """The exported model as anybody would load it; a GGUF file as what its values stand for."""
    from transformers import AutoModelForCausalLM

    place: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {"use_safetensors": True}
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or "auto", local_files_only=True, **place
        )
    return model.eval()


def tokenizer_of(
    folder: Path, gguf_file: str | None
) -> Callable[[Sequence[dict[str, Any]], Sequence[Any]], list[int]]:
    """Messages and tools -> the prompt's tokens, by the exported model's own tokenizer and template."""
    from transformers import AutoTokenizer

    place: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    with quiet():
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, **place)

    def ids(messages: Sequence[dict[str, Any]], tools: Sequence[Any]) -> list[int]:
        found = tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        return [int(n) for n in found["input_ids"]]

    return ids
