"""Tokens into text as they come, held back while a stop string may be beginning."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one answer. Its pieces together are the text of all its tokens, up to a stop string."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        """Whether a stop string has come; it is not part of the text."""
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._decoded = ""
        self._sent = 0

    def push(self, token: int) -> str:
        """What may be shown now that this token has come."""
        self._ids.append(token)
        self._decoded += self._stream.step(self._tokenizer, token) or ""
        return self._take(self._held())

    def end(self) -> str:
        """The rest: what was held back, and characters that no further token will complete."""
        if self.stopped:
            return ""
        whole: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if whole.startswith(self._decoded):
            self._decoded = whole
        return self._take(0)

    def _take(self, held: int) -> str:
        found = [at for stop in self._stops if (at := self._decoded.find(stop, self._sent)) >= 0]
        until = min(found) if found else len(self._decoded) - held
        self.stopped = bool(found)
        piece, self._sent = self._decoded[self._sent : until], max(until, self._sent)
        return piece

    def _held(self) -> int:
        """Characters at the end that a stop string begins with."""
        return max(
            (
                length
                for stop in self._stops
                for length in range(min(len(stop) - 1, len(self._decoded) - self._sent), 0, -1)
                if self._decoded.endswith(stop[:length])
            ),
            default=0,
        )
