"""One thread that decodes for every client, and the inbox through which a request hears of its answers.

Requests join between two steps and leave as they end. Nothing a client does holds up the others: one that has
gone is let go of at the next step, and one that does not read is let go of when its inbox is full.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from datatunerx.modeling.base import Base
from datatunerx.modeling.decoding import AnswerRow, Chosen, Decoder
from datatunerx.modeling.sampling import Likely
from datatunerx.serving.errors import ApiError
from datatunerx.serving.text import TextStream

log = logging.getLogger(__name__)

INBOX_PIECES = 2048
"""Pieces of answers that wait for a client to read them, for each of its answers."""


@dataclass(frozen=True)
class Piece:
    """What one step added to one answer."""

    index: int
    """Which of the request's answers."""
    text: str
    token: int | None = None
    """None is the stop token, or nothing but an end."""
    likely: Likely | None = None
    finish: str | None = None


@dataclass(eq=False)
class Choice:
    """One answer of a request."""

    row: AnswerRow
    text: TextStream


@dataclass(eq=False)
class Request:
    """Answers to be given to one client. Made, and read, in the event loop."""

    choices: list[Choice]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    asked: float = field(default_factory=time.perf_counter)
    first: float | None = None
    """When its first token came."""
    ended: float | None = None
    gone: bool = False
    """Nobody wants it any more; its rows leave at the next step."""
    _inbox: deque[Piece] = field(default_factory=deque)
    error: ApiError | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def pieces(self) -> list[Piece]:
        """What has come since the last call, at least one piece. Raises the `ApiError` that ended it."""
        while not self._inbox:
            if self.error is not None:
                raise self.error
            self._news.clear()
            await self._news.wait()
        found = list(self._inbox)
        self._inbox.clear()
        return found

    def hear(self, piece: Piece) -> None:
        """In the event loop: the engine has got on with it."""
        if self.error is not None:
            return
        if len(self._inbox) >= INBOX_PIECES * len(self.choices):
            self.gone = True
            said = f"the answer was dropped: {len(self._inbox)} pieces of it waited to be read"
            self._inbox.clear()
            return self.fail(ApiError(500, said, "client_too_slow"))
        now = time.perf_counter()
        self.first = self.first or now
        self.ended = now
        self._inbox.append(piece)
        self._news.set()

    def fail(self, error: ApiError) -> None:
        """In the event loop: there will be no more."""
        self.error = error
        self._news.set()

    @property
    def tokens(self) -> int:
        """Of all its answers so far."""
        return sum(len(choice.row.ids) for choice in self.choices)


@dataclass(frozen=True)
class Load:
    """What is in hand."""

    requests: int
    rows: int
    waiting: int
    """Answers that wait for room."""


class Engine:
    """Decodes in a thread of its own, on `threads` cores. The other methods may be called from any."""

    def __init__(
        self, base: Base, *, cache_tokens: int, max_rows: int, max_waiting: int, threads: int | None = None
    ) -> None:
        self.base = base
        self._threads = threads or torch.get_num_threads()
        self.cache_tokens, self._max_rows, self._max_waiting = cache_tokens, max_rows, max_waiting
        self._decoder = self._new_decoder()
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Request, int]] = deque()
        self._owners: dict[int, tuple[Request, int]] = {}
        """By row: whose it is, and which of its answers."""
        self._leaving: ApiError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self.steps = 0

    def start(self) -> None:
        self._thread.start()

    @property
    def load(self) -> Load:
        with self._changed:
            owners, waiting = list(self._owners.values()), list(self._waiting)
        return Load(len({id(request) for request, _ in owners + waiting}), len(owners), len(waiting))

    def submit(self, request: Request) -> None:
        """Raises `ApiError` if too many wait already, or the engine is about to stop."""
        with self._changed:
            if self._leaving is not None:
                raise self._leaving
            in_hand = len(self._owners) + len(self._waiting)
            if in_hand + len(request.choices) > self._max_rows + self._max_waiting:
                raise ApiError(
                    429, f"{len(self._waiting)} answers wait already; ask again later", "overloaded",
                    retry_after=1,
                )  # fmt: skip
            self._waiting += [(request, index) for index in range(len(request.choices))]
            self._changed.notify()

    def drop(self, request: Request) -> None:
        """Its client has gone, or has all it wants."""
        request.gone = True
        with self._changed:
            self._changed.notify()

    def refuse(self) -> None:
        """Take nothing new; what is in hand goes on."""
        with self._changed:
            self._leaving = ApiError(503, "this service is about to stop", "stopping", retry_after=5)

    def close(self) -> None:
        """End the thread; what is in hand is told so."""
        self.refuse()
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    # -- in the thread

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # of this thread
        while self._take_in():
            try:
                self._tell(self._decoder.advance())
                self.steps += 1
            except Exception as error:  # whatever a step dies of, the service goes on
                log.exception("a step failed; its answers are dropped")
                self._fail_all(ApiError(500, f"the step failed: {type(error).__name__}: {error}", "failed"))
                self._decoder = self._new_decoder()
        assert self._leaving is not None
        self._fail_all(self._leaving)

    def _take_in(self) -> bool:
        """Let go of what nobody wants, take in what there is room for; waits for work, False at the end."""
        with self._changed:
            while True:
                for choice_of, (request, index) in list(self._owners.items()):
                    if request.gone:
                        self._decoder.leave(request.choices[index].row)
                        del self._owners[choice_of]
                if any(request.gone for request, _ in self._waiting):
                    self._waiting = deque(entry for entry in self._waiting if not entry[0].gone)
                if self._closed:
                    return False
                while self._waiting:
                    request, index = self._waiting[0]
                    row = request.choices[index].row
                    if not self._decoder.fits(row):
                        break
                    self._decoder.join(row)
                    self._owners[id(row)] = self._waiting.popleft()
                if self._owners:
                    return True
                self._changed.wait()

    def _tell(self, chosen: Sequence[Chosen]) -> None:
        """Each request hears of its tokens; one call into its event loop for all of a step."""
        told: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        for row, token, likely in chosen:
            request, index = self._owners[id(row)]
            text = request.choices[index].text
            said = "" if token is None else text.push(token)
            finish = "stop" if text.stopped else row.finish
            if finish is not None:
                said += text.end()
                self._decoder.leave(row)
                with self._changed:
                    del self._owners[id(row)]
            piece = Piece(index, said, token, likely, finish)
            told.setdefault(request.loop, []).append(lambda r=request, p=piece: r.hear(p))  # type: ignore[misc]
        for loop, calls in told.items():
            _call(loop, calls)

    def _fail_all(self, error: ApiError) -> None:
        with self._changed:
            entries = [*self._owners.values(), *self._waiting]
            self._owners.clear()
            self._waiting.clear()
        for request in {id(request): request for request, _ in entries}.values():
            _call(request.loop, [lambda r=request: r.fail(error)])  # type: ignore[misc]

    def _new_decoder(self) -> Decoder:
        return Decoder(self.base, self.cache_tokens, self._max_rows)


def _call(loop: asyncio.AbstractEventLoop, calls: Sequence[Callable[[], None]]) -> None:
    def run() -> None:
        for call in calls:
            call()

    if not loop.is_closed():
        loop.call_soon_threadsafe(run)
