"""Answers in OpenAI's shape: whole or as chunks, with what they came from beside them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from datatunerx.serving.catalogue import Model
from datatunerx.serving.engine import Piece, Request


@dataclass
class Reply:
    """One request's answers as they are told to its client."""

    id: str
    chat: bool
    model: Model
    request: Request
    tokenizer: Tokenizer
    prompt_tokens: int
    settings: dict[str, Any]
    """Seed and the rest, as they were used."""
    notes: list[str]
    """What was not done as it was asked."""
    created: int = field(default_factory=lambda: int(time.time()))
    _offsets: dict[int, int] = field(default_factory=dict)

    @property
    def made_by(self) -> dict[str, Any]:
        """What is known of the answer before it is made: what it comes from, and the settings."""
        identity = self.model.identity
        return {
            "model": self.model.name, "base": identity.base, "adapter": identity.adapter,
            "template": identity.template, "precision": identity.precision, "engine": identity.engine,
            **self.settings,
        }  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """The same with what it took, once it is made."""
        request = self.request
        seconds = (request.ended or request.asked) - request.asked
        first = (request.first or request.asked) - request.asked
        speed = request.tokens / seconds if seconds > 0 else 0.0
        return {
            **self.made_by, "seconds": round(seconds, 6), "firstTokenSeconds": round(first, 6),
            "tokens": request.tokens, "tokensPerSecond": round(speed, 3), "notes": self.notes,
        }  # fmt: skip

    def usage(self) -> dict[str, int]:
        made = self.request.tokens
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
        }  # fmt: skip

    # -- whole

    def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        choices = []
        for index in range(len(self.request.choices)):
            own = [piece for piece in pieces if piece.index == index]
            text = "".join(piece.text for piece in own)
            choice: dict[str, Any] = {"index": index, "finish_reason": own[-1].finish, "logprobs": None}
            if self.chat:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            else:
                choice["text"] = text
            choice["logprobs"] = self._logprobs(own)
            choices.append(choice)
        kind = "chat.completion" if self.chat else "text_completion"
        return self._head(kind) | {
            "choices": choices, "usage": self.usage(), "datatunerx": self.identity()
        }  # fmt: skip

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model.name,
            "system_fingerprint": self.model.identity.fingerprint,
        }  # fmt: skip

    # -- in chunks

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before any token."""
        if not self.chat:
            return []
        return [
            self._chunk(
                {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            )
            for index in range(len(self.request.choices))
        ]

    def chunk(self, piece: Piece, last: bool) -> dict[str, Any] | None:
        """What to tell of a piece, if anything; the last chunk of all says what the answer came from."""
        logprobs = self._logprobs([piece])
        if not piece.text and piece.finish is None and logprobs is None:
            return None
        choice: dict[str, Any] = {
            "index": piece.index, "finish_reason": piece.finish, "logprobs": logprobs
        }  # fmt: skip
        if self.chat:
            choice["delta"] = {"content": piece.text} if piece.text else {}
        else:
            choice["text"] = piece.text
        return self._chunk(choice) | ({"datatunerx": self.identity()} if last else {})

    def closing(self) -> dict[str, Any]:
        """The chunk that only tells the usage."""
        return self._chunk() | {"usage": self.usage(), "datatunerx": self.identity()}

    def _chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return self._head(kind) | {"choices": list(choices)}

    # -- likelihoods

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        told = [piece for piece in pieces if piece.likely is not None and piece.token is not None]
        if not told:
            return None
        return self._chat_logprobs(told) if self.chat else self._text_logprobs(told)

    def _chat_logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        found = []
        for piece in pieces:
            assert piece.likely is not None and piece.token is not None
            top = [self._said(token) | {"logprob": value} for token, value in piece.likely.top]
            found.append(self._said(piece.token) | {"logprob": piece.likely.logprob, "top_logprobs": top})
        return {"content": found, "refusal": None}

    def _text_logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        tokens, values, tops, offsets = [], [], [], []
        for piece in pieces:
            assert piece.likely is not None and piece.token is not None
            tokens.append(self._said(piece.token)["token"])
            values.append(piece.likely.logprob)
            tops.append({self._said(token)["token"]: value for token, value in piece.likely.top})
            offsets.append(self._offsets.get(piece.index, 0))
            self._offsets[piece.index] = offsets[-1] + len(tokens[-1])
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _said(self, token: int) -> dict[str, Any]:
        """A token as text; a part of a character has no bytes of its own that we could tell."""
        text: str = self.tokenizer.decode([token], skip_special_tokens=False)
        return {"token": text, "bytes": None if "\ufffd" in text else list(text.encode())}
