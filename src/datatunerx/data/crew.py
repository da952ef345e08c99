"""One function over many things, in several processes, its answers in the order of the things.

The first process of a crew is a fresh interpreter: whoever asks may have threads, and is never forked. It is
sent the function, with the tokenizer in it, and forks the others, which share its memory. All of them end
when their asker does, however it ends, and at once when it has no more to ask.
"""

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeVar

from datatunerx.data.errors import DataError

A = TypeVar("A")
B = TypeVar("B")
MAX_PROCESSES = 5
"""Each takes some 100 MB with its templates' process, beside what they share: all stay below a gigabyte."""
SOLO = "free some memory, or set OMP_NUM_THREADS=1 so that one process does the work, and start it again"
"""What helps when a process was killed."""
ENDING_SECONDS = 5.0
ORPHAN_SECONDS = 1.0
"""A process whose asker is gone may work on for so long."""
_PROGRAM = "from datatunerx.data.crew import lead; lead()"
# Threads that a fork would not take along.
_ALONE = {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class CrewError(Exception):
    """A process ended while it worked on `thing`; says how."""

    def __init__(self, thing: Any, said: str = "") -> None:
        super().__init__(said)
        self.thing = thing


def num_processes() -> int:
    """As many as this process was given cores: OMP_NUM_THREADS says its share of the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(ValueError):
        cores = min(cores, int(os.environ.get("OMP_NUM_THREADS", "")))
    return max(1, min(cores, MAX_PROCESSES))


def in_order(work: Callable[[A], B], things: Iterable[A], processes: int) -> Generator[B, None, None]:
    """`work(thing)` of each thing, in their order; in this process if `processes` is 1.

    `work` and things must be such as can be pickled. No more than a few things are taken ahead. Raises what
    `work` raises first (DataError, MemoryError), what the things raise once all before it is answered, and
    CrewError.
    """
    if processes == 1:
        yield from map(work, things)
        return
    with ThreadPoolExecutor(processes) as threads, _crew(work, processes) as crew:
        ahead: deque[Future[B]] = deque()
        trouble: DataError | None = None
        source = iter(things)
        while True:
            try:
                ahead.append(threads.submit(crew.ask, next(source)))
            except StopIteration:
                break
            except DataError as error:
                trouble = error
                break
            if len(ahead) > processes + 1:
                yield crew.answer(ahead.popleft())
        while ahead:
            yield crew.answer(ahead.popleft())
        if trouble:
            raise trouble


class _Crew:
    """As its asker sees it: a connection to each process."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", connections: Sequence["Connection[Any, Any]"]
    ) -> None:
        self._process = process
        self._idle: SimpleQueue[Connection[Any, Any]] = SimpleQueue()
        for connection in connections:
            self._idle.put(connection)

    def ask(self, thing: A) -> Any:
        """Called in a thread for each process; waits for the answer."""
        connection = self._idle.get()
        try:
            connection.send(thing)
            is_good, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise CrewError(thing) from error
        finally:
            self._idle.put(connection)
        if not is_good:
            raise answer
        return answer

    def answer(self, asked: "Future[B]") -> B:
        try:
            return asked.result()
        except CrewError as error:
            raise CrewError(error.thing, self._ending()) from error

    def _ending(self) -> str:
        """How the process ended that did."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "is gone"
        number = -code if code < 0 else code - 128
        try:
            return f"was ended by {signal.Signals(number).name}"
        except ValueError:
            return f"ended with exit code {code}; the log has the traceback"


@contextmanager
def _crew(work: Callable[[A], B], processes: int) -> Iterator[_Crew]:
    pairs = [Pipe() for _ in range(processes + 1)]
    numbers = [theirs.fileno() for _, theirs in pairs]
    # A group of its own: it is ended as a whole, and a Ctrl-C is for the asker to hear.
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, numbers)],
        stdin=subprocess.DEVNULL, pass_fds=numbers, env=os.environ | _ALONE, process_group=0,
    )  # fmt: skip
    try:
        for _, theirs in pairs:
            theirs.close()
        with suppress(OSError):  # it ended: whoever asks hears of it
            pairs[0][0].send(work)
        yield _Crew(process, [ours for ours, _ in pairs[1:]])
        for ours, _ in pairs:
            ours.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_SECONDS)
    finally:
        if process.returncode is None:  # else its number may be another's; who is left hears that nobody asks
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for ours, _ in pairs:
            ours.close()


# -- in the crew


def lead() -> None:
    """The first process: forks the others, waits for them, and ends as the first that ends badly."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the asker hears them, too, and its end is theirs
    first, *connections = (Connection(int(number)) for number in sys.argv[1:])
    try:
        work = first.recv()
    except EOFError:
        return
    gc.freeze()  # what is never looked at by the collector stays shared
    gc.set_threshold(100_000)  # rows are many objects and hold no cycles
    for connection in connections:
        if not os.fork():
            for other in (first, *connections):
                if other is not connection:
                    other.close()
            return _work(connection, work)
    for connection in connections:
        connection.close()
    for _ in connections:
        code = os.waitstatus_to_exitcode(os.wait()[1])
        if code:
            os._exit(code if code > 0 else 128 - code)


def _work(connection: "Connection[Any, Any]", work: Callable[[Any], Any]) -> None:
    """Answer until nobody asks."""
    threading.Thread(target=_watch, args=[connection.fileno()], daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            thing = connection.recv()
            try:
                answer = (True, work(thing))
            except (DataError, MemoryError) as error:
                answer = (False, error)
            connection.send(answer)


def _watch(number: int) -> None:
    """End this process soon after its asker, which may have died in the middle of its work."""
    asker = select.poll()
    asker.register(number, 0)  # no event but the other end's closing
    asker.poll()
    time.sleep(ORPHAN_SECONDS)
    os._exit(0)
