"""What changes while a page is open: topics that are read once for everybody, and readers that fall behind.

A topic is what a run's log or events gained, or which objects of a kind changed. Its offsets are those of the
file, or versions of the API, so that a reader goes on where it was, whatever was started anew in between. A
topic is looked at every 100 ms while it has readers, by the rights of one of them; what it gained is encoded
once. Nothing is queued for a reader: it takes what comes after its own offset when it can, and one that is
too far behind is told of the gap.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import orjson

from datatunerx.client import Api, ApiError
from datatunerx.client.api import path_of
from datatunerx.client.errors import Gone, NotFound, from_answer
from datatunerx.console import kinds
from datatunerx.console.tail import line_rows, open_row
from datatunerx.telemetry.logs import LONGEST_LINE
from datatunerx.telemetry.measured import CHECKPOINT, HEAD, measured

FLUSH_SECONDS = 0.1
RECHECK_SECONDS = 10.0
"""How often a reader's rights are looked at again."""
BEHIND = 1 << 20
"""Bytes by which a reader may be behind before it skips."""
REPLAYED = 500
"""Versions of the API that are looked through for the first reader of a topic."""
LAST_LINES = 200
"""What one who skips is shown of what was before."""
KEPT = 256 << 10
"""Bytes of messages that a topic keeps for those a little behind."""
PIECE = 2 * LONGEST_LINE
"""Bytes that one who is behind is sent at once."""
START, END, SIZE = "x-datatunerx-start", "x-datatunerx-end", "x-datatunerx-size"

log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """What a topic gained from one offset to another, encoded."""

    start: int
    end: int
    text: str


def encode(topic: str, start: int, end: int, **more: Any) -> str:
    return orjson.dumps({"topic": topic, "from": start, "to": end, **more}).decode()


class Piece(NamedTuple):
    """Bytes of a file of a run, and where they are in it; `open` is the beginning of its last line."""

    start: int
    data: bytes
    open: bytes
    size: int

    @property
    def end(self) -> int:
        return self.start + len(self.data)


async def piece(api: Api, namespace: str, run: str, part: str, **query: Any) -> Piece:
    """Read the log or events of a run through the API. Raises ApiError."""
    where = path_of(kinds.PLURALS["Run"], namespace, run, part)
    asked = {name: str(value) for name, value in query.items() if value is not None}
    answer = await api.transport.request("GET", where, query=asked)
    if answer.status >= 300:
        raise from_answer(answer.status, answer.body)
    start, end, size = (int(answer.headers[name]) for name in (START, END, SIZE))
    return Piece(start, answer.body[: end - start], answer.body[end - start :], size)


class FileTopic:
    """`log:RUN` or `points:RUN`. Offsets are bytes of the file.

    `look` finds what is new and says whether there is; `after` is what comes after a reader's offset.
    """

    def __init__(self, hub: "Hub", namespace: str, name: str) -> None:
        self._hub, self._namespace, self.name = hub, namespace, name
        kind, _, self._run = name.partition(":")
        self._part = {"log": "log", "points": "events"}[kind]
        self.readers: dict[Reader, None] = {}
        self.head: int | None = None
        self._frames: deque[Frame] = deque()
        self._kept = 0
        self._open: tuple[bytes, str] = (b"", "")

    async def look(self) -> bool:
        reader = next(iter(self.readers))
        changed = self.head is None
        if self.head is None:  # what was before each reader takes when it can, if it is still there then
            self.head = (await self._tail(reader, lines=1)).end
        found = await self._read(reader, self.head, None)
        if self._part == "log" and found.size - found.start > 2 * BEHIND:  # nobody reads so fast
            self.head = (await self._tail(reader, before=found.size)).start
            self._frames.clear()
            return True
        if found.start < self.head:  # the file was begun anew
            self._frames.clear()
            self._kept, self.head = 0, found.start
            for each in self.readers:
                each.offsets[self.name] = found.start
        if found.data:
            self._keep(self._frame(found))
            self.head, changed = found.end, True
        started = found.open if found.end + len(found.open) >= found.size else b""  # else it was only cut
        if started != self._open[0]:
            row = open_row(found.end, started)
            self._open = started, encode(self.name, found.end, found.end, open=row) if row else ""
            changed = True
        return changed

    async def after(self, reader: "Reader") -> str | None:
        at, head = reader.offsets[self.name], self.head
        if head is None:
            return None
        if at >= head:
            if reader.opened.get(self.name) == self._open[0] or not self._open[1]:
                return None
            reader.opened[self.name] = self._open[0]
            return self._open[1]
        if head - at > BEHIND:
            tail = await self._tail(reader, before=head)
            reader.offsets[self.name] = tail.start
            return encode(self.name, at, tail.start, gap=tail.start - at)
        frame = next((frame for frame in self._frames if frame.start == at), None)
        if frame is None:
            frame = self._frame(await self._read(reader, at, head - at))
        reader.offsets[self.name] = frame.end if frame.end > at else head
        return frame.text

    def close(self) -> None:
        """Nothing is held open."""

    async def _read(self, reader: "Reader", offset: int, limit: int | None) -> Piece:
        more = {"open": "true"} if self._part == "log" and limit is None else {}
        size = None if limit is None else min(limit, PIECE)
        return await self._hub.read(
            reader, self._namespace, self._run, self._part, offset=offset, limit=size, **more
        )

    async def _tail(self, reader: "Reader", before: int | None = None, lines: int = LAST_LINES) -> Piece:
        """The last lines before an offset, or of all."""
        return await self._hub.read(reader, self._namespace, self._run, self._part, before=before, tail=lines)

    def _frame(self, found: Piece) -> Frame:
        if self._part == "log":
            text = encode(self.name, found.start, found.end, lines=line_rows(found.start, found.data))
        else:
            text = encode(self.name, found.start, found.end, jobs=columns(found.data))
        return Frame(found.start, found.end, text)

    def _keep(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._kept += len(frame.text)
        while self._kept > KEPT and len(self._frames) > 1:
            self._kept -= len(self._frames.popleft().text)


def _to_ms(seconds: float | None) -> float:
    return round(seconds or 0.0, 3)


def columns(data: bytes) -> dict[str, dict[str, list[list[float | None]]]]:
    """Points in lines of events: by job and name the steps, times and values."""
    found: dict[str, dict[str, list[tuple[Any, ...]]]] = {}
    for (job, *names), rows in measured(data).items():
        lines, times, steps, *values = (
            rows[place :: HEAD + len(names)] for place in range(HEAD + len(names))
        )
        for name, column in zip(names, values, strict=True):
            points = zip(lines, steps, map(_to_ms, times), column, strict=True)
            found.setdefault(job, {}).setdefault(name, []).extend(
                point for point in points if point[3] is not None or name == CHECKPOINT
            )
    return {
        job: {
            # what was told with different neighbours, back in the order of the lines
            name: [list(column) for column in list(zip(*sorted(points), strict=True))[1:]]
            for name, points in names.items()
            if points
        }
        for job, names in found.items()
    }


class StatusTopic:
    """`status:KIND`: names of objects that changed. Offsets are versions of the API; a page that follows from
    the one it was read at hears of what has changed since, and of nothing else."""

    def __init__(self, hub: "Hub", namespace: str, name: str) -> None:
        self._hub, self._namespace, self.name = hub, namespace, name
        self._kind = name.partition(":")[2]
        self.readers: dict[Reader, None] = {}
        self.head: int | None = None
        self._frames: deque[Frame] = deque(maxlen=64)
        self._fresh: dict[str, None] = {}
        self._version = 0
        self._replays = True
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> bool:
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name=f"console {self.name}")
        if not self._fresh or self.head is None:
            return False
        names, self._fresh = list(self._fresh), {}
        text = encode(self.name, self.head, self._version, names=names)
        self._frames.append(Frame(self.head, self._version, text))
        self.head = self._version
        return True

    async def after(self, reader: "Reader") -> str | None:
        at, head = reader.offsets[self.name], self.head
        if head is None or at >= head:
            return None
        frame = next((frame for frame in self._frames if frame.start <= at < frame.end), None)
        if frame is None:  # nobody knows what happened in between: anything may have changed
            frame = Frame(at, head, encode(self.name, at, head, names=None))
        reader.offsets[self.name] = frame.end
        return frame.text

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        """Note what changes, by the rights of whoever reads."""
        while self.readers:
            reader = next(iter(self.readers))
            try:
                await self._follow(reader)
            except Gone:
                self.head, self._replays = None, False  # who reads is told that anything may have changed
            except ApiError as error:
                reader.refuse(self.name, error)
            await asyncio.sleep(FLUSH_SECONDS)

    async def _follow(self, reader: "Reader") -> None:
        plural = kinds.PLURALS[self._kind]
        if self.head is None:
            now = await newest(reader.api, self._kind, self._namespace)
            told = [each.offsets[self.name] for each in self.readers]
            known = [at for at in told if max(0, now - REPLAYED) < at <= now]
            self.head = self._version = min(known) if known and self._replays else now
            for each in self.readers:
                each.wake.set()
        async for change in reader.api.watch(plural, self._namespace, version=str(self._version)):
            metadata = change.object["metadata"]
            self._version = max(self._version, int(metadata["resourceVersion"]))
            if change.type != "BOOKMARK":
                self._fresh[str(metadata["name"])] = None
            if reader not in self.readers:
                return  # its rights are no longer ours to use


async def newest(api: Api, kind: str, namespace: str) -> int:
    """The version of the API now, as who may list the kind sees it."""
    answer = await api.transport.request("GET", path_of(kinds.PLURALS[kind], namespace), query={"limit": "1"})
    if answer.status >= 300:
        raise from_answer(answer.status, answer.body)
    return int(orjson.loads(answer.body)["metadata"]["resourceVersion"])


class Reader:
    """One page. `api` has its visitor's rights."""

    def __init__(self, hub: "Hub", namespace: str, api: Api) -> None:
        self._hub, self.namespace, self.api = hub, namespace, api
        self.offsets: dict[str, int] = {}
        self.opened: dict[str, bytes] = {}
        self.wake = asyncio.Event()
        self._said: deque[str] = deque()

    async def follow(self, name: str, offset: int) -> None:
        """Take part in a topic from an offset on; what the visitor may not see is refused in a message."""
        try:
            size = await self._allowed(name)
        except ApiError as error:
            return self._say(name, error)
        self.offsets[name] = offset if size is None or offset <= size else 0  # the file was begun anew
        self._hub.join(self, name)
        self.wake.set()

    def leave(self, name: str) -> None:
        if self.offsets.pop(name, None) is not None:
            self.opened.pop(name, None)
            self._hub.part(self, name)

    def close(self) -> None:
        for name in list(self.offsets):
            self.leave(name)

    def refuse(self, name: str, error: ApiError) -> None:
        """End a topic for this reader, and say why."""
        self.leave(name)
        self._say(name, error)
        self.wake.set()

    async def check(self) -> None:
        """Look again at what the visitor may see. Raises Unauthorized when the token is none any more."""
        for name in list(self.offsets):
            try:
                await self._allowed(name)
            except ApiError as error:
                if error.status == 401:
                    raise
                self.refuse(name, error)

    async def messages(self) -> AsyncIterator[str]:
        """What there is after its offsets, one message at a time, as fast as they are taken."""
        while True:
            self.wake.clear()
            found = False
            while self._said:
                yield self._said.popleft()
            for name in list(self.offsets):
                text = await self._hub.after(self, name)
                if text is not None:
                    found = True
                    yield text
            if not found and not self._said:
                await self.wake.wait()

    async def _allowed(self, name: str) -> int | None:
        """Bytes of the file, if the topic is one. Raises ApiError for what the visitor may not see."""
        part, _, rest = name.partition(":")
        if part == "status" and rest in kinds.PLURALS:
            await newest(self.api, rest, self.namespace)
            return None
        if part in ("log", "points") and rest:
            file = {"points": "events"}.get(part, part)
            return (await piece(self.api, self.namespace, rest, file, limit=1)).size
        raise NotFound(404, "NotFound", f"there is no topic {name!r}")

    def _say(self, name: str, error: ApiError) -> None:
        said = {"topic": name, "refused": error.reason, "message": error.message}
        self._said.append(orjson.dumps(said).decode())


class Hub:
    """All topics that somebody reads."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, str], FileTopic | StatusTopic] = {}
        self._task: asyncio.Task[None] | None = None

    def reader(self, namespace: str, api: Api) -> Reader:
        return Reader(self, namespace, api)

    def join(self, reader: Reader, name: str) -> None:
        key = reader.namespace, name
        if key not in self._topics:
            made = StatusTopic if name.startswith("status:") else FileTopic
            self._topics[key] = made(self, reader.namespace, name)
        self._topics[key].readers[reader] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="console topics")
            self._task.add_done_callback(_tell_if_failed)

    def part(self, reader: Reader, name: str) -> None:
        key = reader.namespace, name
        if (topic := self._topics.get(key)) is None:
            return
        topic.readers.pop(reader, None)
        if not topic.readers:
            topic.close()
            del self._topics[key]

    async def after(self, reader: Reader, name: str) -> str | None:
        topic = self._topics.get((reader.namespace, name))
        try:
            return await topic.after(reader) if topic else None
        except ApiError as error:
            reader.refuse(name, error)
            return None

    async def read(self, reader: Reader, namespace: str, run: str, part: str, **query: Any) -> Piece:
        return await piece(reader.api, namespace, run, part, **query)

    async def _run(self) -> None:
        while self._topics:
            began = asyncio.get_running_loop().time()
            await asyncio.gather(*(self._look(topic) for topic in list(self._topics.values())))
            spent = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(FLUSH_SECONDS / 5, FLUSH_SECONDS - spent))

    async def _look(self, topic: FileTopic | StatusTopic) -> None:
        asked = next(iter(topic.readers), None)
        if asked is None:
            return
        try:
            changed = await topic.look()
        except ApiError as error:
            return asked.refuse(topic.name, error)
        if changed:
            for reader in topic.readers:
                reader.wake.set()


def _tell_if_failed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("pages are told nothing new until the next one opens", exc_info=error)
