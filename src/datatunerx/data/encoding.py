"""Text into token ids with character offsets, by the tokenizer's own tokenizer.json.

Text that a user wrote is never read as a control token, whatever it spells.
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, processors

from datatunerx.data.errors import TemplateError
from datatunerx.data.words import Words, words_of

Ints = NDArray[np.int32]


class Encoded(NamedTuple):
    ids: Ints
    """[tokens]"""
    offsets: NDArray[np.int64]
    """[tokens, 2]: the characters each token stands for."""


class Piece(NamedTuple):
    start: int
    end: int
    literal: bool = False
    """Whether control tokens in it are only text."""
    continues: bool = False
    """Whether it goes on where plain text was cut; else a control token or nothing stands before it."""


class TextEncoder:
    """A model's tokenizer. `added` is its added tokens by text, `special` those it calls special."""

    def __init__(self, source: str) -> None:
        """`source` is the text of tokenizer.json."""
        self._source = source
        self._plain = _bare(Tokenizer.from_str(source))
        decoder = self._plain.get_added_tokens_decoder()
        self.added = {token.content: number for number, token in decoder.items()}
        self.special = {token.content for token in decoder.values() if token.special}
        self.control: frozenset[str] = frozenset(self.special)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._source, self.control)

    @classmethod
    def load(cls, folder: Path) -> "TextEncoder":
        """Raises TemplateError if the folder has no readable tokenizer.json."""
        path = folder / "tokenizer.json"
        try:
            return cls(path.read_text(encoding="utf-8"))
        except OSError as error:
            fix = "give a model folder that has one; transformers' save_pretrained writes it"
            raise TemplateError("there is no tokenizer.json", str(folder), fix=fix) from error
        except Exception as error:  # the Rust side raises bare Exception
            raise TemplateError(
                f"cannot be read: {error}", str(path), fix="write the tokenizer again"
            ) from error

    @cached_property
    def _literal(self) -> Tokenizer:
        """The same tokenizer, for which control tokens are plain text."""
        document = json.loads(self._source)
        for token in document["added_tokens"]:
            token["special"] = token["content"] in self.control
        tokenizer = _bare(Tokenizer.from_str(json.dumps(document)))
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def words(self) -> Words | None:
        """The quicker way for texts between control tokens, if there is one."""
        return words_of(self._plain, self._source)

    @cached_property
    def added_pattern(self) -> re.Pattern[str]:
        """Finds any added token, the longest first."""
        return self.pattern(self.added)

    def encode(self, text: str) -> Encoded:
        return _encoded(self._plain.encode(text, add_special_tokens=False))

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Many texts, on all cores."""
        return [_encoded(e) for e in self._plain.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Ints) -> str:
        """The text of the tokens, control tokens too."""
        text: str = self._plain.decode(ids.tolist(), skip_special_tokens=False)
        return text

    def encode_pieces(self, text: str, pieces: Iterable[Piece]) -> Encoded:
        """The text, each piece tokenised for itself. Offsets are those of the whole text."""
        done = [
            self._piece(text[piece.start : piece.end], piece) for piece in pieces if piece.end > piece.start
        ]
        if not done:
            return self.encode("")
        return Encoded(np.concatenate([d.ids for d in done]), np.concatenate([d.offsets for d in done]))

    def _piece(self, text: str, piece: Piece) -> Encoded:
        tokenizer = self._literal if piece.literal else self._plain
        made = _encoded(tokenizer.encode(text, add_special_tokens=False))
        if piece.start > 0 and self._marks_starts(piece.continues):
            made = self._without_mark(tokenizer, text, made)
        if piece.literal and (
            forged := set(made.ids.tolist()) & {self.added[token] for token in self.control}
        ):
            token = self._plain.id_to_token(forged.pop())
            fix = f"remove {token!r} from the row's text"
            raise TemplateError(f"the tokenizer makes the control token {token!r} of plain text", fix=fix)
        return Encoded(made.ids, made.offsets + piece.start)

    @lru_cache(maxsize=2)  # noqa: B019 - two answers, and an encoder lives as long as its process
    def _marks_starts(self, continues: bool) -> bool:
        """Whether a text alone begins with another token than after a line break (SentencePiece's space),
        or, if it does not continue plain text, than after a control token."""
        before = "\n" if continues or not self.control else min(self.control)
        alone = self._plain.encode("x", add_special_tokens=False).ids
        after = self._plain.encode(before + "x", add_special_tokens=False).ids
        lead = self._plain.encode(before, add_special_tokens=False).ids
        return bool(after[len(lead) :] != alone)

    def _without_mark(self, tokenizer: Tokenizer, text: str, made: Encoded) -> Encoded:
        lead = tokenizer.encode("\n", add_special_tokens=False).ids
        whole = _encoded(tokenizer.encode("\n" + text, add_special_tokens=False))
        if whole.ids[: len(lead)].tolist() != lead:
            return made
        return Encoded(whole.ids[len(lead) :], np.maximum(whole.offsets[len(lead) :] - 1, 0))

    def pattern(self, tokens: Iterable[str]) -> re.Pattern[str]:
        """Finds any of the tokens, the longest first."""
        longest = sorted(tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) or "(?!)")


def _again(source: str, control: frozenset[str]) -> TextEncoder:
    """One that was sent to another process, with all that takes time to make."""
    encoder = TextEncoder(source)
    encoder.control = control
    _ = encoder.words
    return encoder


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """Without truncation or padding, and without the post-processor: templates write their own control
    tokens, and some post-processors trim the offsets."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.post_processor = processors.TemplateProcessing(single="$0", pair="$A $B", special_tokens=[])
    return tokenizer


def _encoded(encoding: Encoding) -> Encoded:
    return Encoded(
        np.array(encoding.ids, dtype=np.int32), np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    )
