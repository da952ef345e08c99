"""A client's request into rows for the engine: its model, its prompt's tokens, its settings within bounds."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from datatunerx.data import TemplateError
from datatunerx.data.encoding import Piece as Cut
from datatunerx.modeling.decoding import AnswerRow
from datatunerx.serving.catalogue import Model
from datatunerx.serving.engine import Choice, Engine
from datatunerx.serving.errors import refused
from datatunerx.serving.requests import ChatRequest, Common, CompletionRequest
from datatunerx.serving.text import TextStream

UNASKED_TOKENS = 2048
"""Length of an answer to a request without max_tokens, at most."""


@dataclass(frozen=True)
class Prepared:
    """A request that can be answered."""

    choices: list[Choice]
    prompt_tokens: int
    settings: dict[str, Any]
    notes: list[str]


def chat_prompts(model: Model, asked: ChatRequest) -> list[list[int]]:
    """The one prompt of a chat, as the model's template writes it."""
    tools = asked.written_tools
    if tools and "tools" not in model.template.text:
        raise refused(
            f"the chat template of {model.name} does not write tools; leave tools out",
            "tools",
            "unsupported_tools",
        )
    try:
        return [model.template.prompt_ids([message.plain() for message in asked.messages], tools)]
    except TemplateError as error:
        raise refused(str(error), "messages", "template_error") from error


def text_prompts(model: Model, asked: CompletionRequest) -> list[list[int]]:
    """The prompts of a completion; no template writes anything around them, and text is only text."""
    encoder, found = model.template.encoder, []
    for prompt in asked.prompts:
        if isinstance(prompt, list):
            found.append(prompt)
            continue
        literal = encoder.pattern(encoder.control).search(prompt) is not None
        try:
            ids: list[int] = encoder.encode_pieces(prompt, [Cut(0, len(prompt), literal)]).ids.tolist()
        except (TemplateError, UnicodeEncodeError) as error:
            raise refused(f"the prompt cannot be tokenised: {error}", "prompt") from error
        found.append(ids)
    return found


def prepare(
    engine: Engine, tokenizer: Tokenizer, model: Model, asked: Common, prompts: Sequence[Sequence[int]],
    limit: int | None, likeliest: int | None, param: str,
) -> Prepared:  # fmt: skip
    """Raises `ApiError` for a prompt that cannot be answered. Too high a limit is lowered, and says so."""
    words, context = int(engine.base.config.vocab_size), int(engine.base.config.max_position_embeddings)
    if not prompts:
        raise refused("there is no prompt", param)
    for ids in prompts:
        if not ids:
            raise refused("the prompt has no token", param)
        if not all(0 <= one < words for one in ids):
            raise refused(f"token ids are from 0 to {words - 1}", param)
        if len(ids) >= context:
            said = f"the prompt has {len(ids):,} tokens, and the context is {context:,}, answer included"
            raise refused(
                f"{said}; shorten it by at least {len(ids) - context + 1:,}", param, "context_length_exceeded"
            )
        if len(ids) >= engine.cache_tokens:
            raise refused(
                f"the prompt has {len(ids):,} tokens and this service has room for {engine.cache_tokens:,}",
                param, "context_length_exceeded",
            )  # fmt: skip
    room = min(context, engine.cache_tokens) - max(map(len, prompts))
    wanted = min(limit or UNASKED_TOKENS, room)
    notes = []
    if limit is not None and limit > room:
        notes.append(
            f"max_tokens {limit:,} was lowered to {room:,}, which is what the prompt leaves of the context"
        )
    settings: dict[str, Any] = {
        "seed": secrets.randbits(31) if asked.seed is None else asked.seed,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "topP": 1.0 if asked.top_p is None else asked.top_p, "maxTokens": wanted, "stop": asked.stops,
    }  # fmt: skip
    stop_ids = frozenset(model.template.stop_ids)
    choices = [
        Choice(
            AnswerRow(
                ids, wanted, model.adapter, stop_ids, settings["temperature"], settings["topP"],
                _numbers(settings["seed"], place), likeliest,
            ),
            TextStream(tokenizer, asked.stops),
        )
        for place, ids in enumerate(ids for ids in prompts for _ in range(asked.n or 1))
    ]  # fmt: skip
    return Prepared(choices, sum(map(len, prompts)), settings, notes)


def _numbers(seed: int, place: int) -> torch.Generator:
    """What an answer is drawn with: by the seed and its place in its own request, by nothing else."""
    return torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63)
