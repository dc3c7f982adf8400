"""Blocking reads and actions, off the event loop: in a few threads, within a time, over a read-only connection.

::

    facts = await in_thread(request, look_up, postback_id)             # a read
    facts = await shared(request, "now", 2.0, read_now)                # a read for all who look at the same
    job = await act(request, start_resend, query, by=viewer.name)      # an action, which may write
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from postbacks.errors import HistoryError, HistoryUnavailable
from postbacks.history.engine import read_only, using

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from starlette.requests import Request

    from postbacks.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

#: Reads and actions at a time; more wait.
THREADS: Final = 8
#: Reads and actions that wait for a thread at most.
WAITING_MAX: Final = 64
#: Seconds that a page waits for a read; the thread ends by the statement's and the broker's own limits.
READ_S: Final = 5.0
#: ms after which the database gives a statement of a page up.
STATEMENT_MS: Final = 4_000
#: Seconds that a page waits for an action: a job's preview counts, a ping makes a POST.
ACT_S: Final = 30.0
#: Seconds for which a history that could not be opened is not tried again.
_RETRY_S: Final = 2.0
#: Times as long as it took for which an answer that may be stale is given again: it is read a tenth of the time at most.
_PAUSES: Final = 10.0
#: Answers that are shared at a time.
_SHARED_MAX: Final = 256
#: Things that ``kept`` has at a time.
_KEPT_MAX: Final = 32


class Busy(HistoryUnavailable):
    """Raised when too many reads wait already, or one took too long."""


@dataclass(eq=False)
class _Answer:
    """Answer that several get.

    Attributes:
        future: of it.
        began_s: when it was asked for.
        took_s: how long it took.
        following: the next one, while it is read.
    """

    future: asyncio.Future[Any]
    began_s: float = field(default_factory=time.monotonic)
    took_s: float = 0.0
    following: _Answer | None = None

    def end(self, done: asyncio.Future[Any]) -> None:
        """Note how long it took; of one that nobody waits for, take the error."""
        self.took_s = time.monotonic() - self.began_s
        if not done.cancelled():
            done.exception()

    def is_fresh(self, fresh_s: float, pauses: float) -> bool:
        """Tell whether it is given again: for so many seconds, and for so many times as long as it took."""
        return time.monotonic() - self.began_s < max(fresh_s, self.took_s * pauses)

    def is_good(self, stale_s: float) -> bool:
        """Tell whether it is given again while the next one is read."""
        is_answer = not self.future.cancelled() and self.future.exception() is None
        return is_answer and time.monotonic() - self.began_s < stale_s


@dataclass
class Reading:
    """Threads and read-only engine of one web process.

    Attributes:
        settings: of the process.
    """

    settings: Settings
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="postbacks-web")
    )
    _waiting: int = 0
    _engine: Engine | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _tried_s: float = float("-inf")
    _shared: dict[Hashable, _Answer] = field(default_factory=dict)
    _memory: dict[Hashable, Any] = field(default_factory=dict)
    _keeping: threading.Lock = field(default_factory=threading.Lock)

    def engine(self) -> Engine | None:
        """Return the engine; None where no history is set or it cannot be opened, so that whoever reads says why."""
        with self._opening:
            is_due = time.monotonic() - self._tried_s >= _RETRY_S
            if self._engine is None and self.settings.history_url and is_due:
                try:
                    self._engine = read_only(self.settings, statement_ms=STATEMENT_MS, connections=THREADS)
                except HistoryError:
                    self._tried_s = time.monotonic()
            return self._engine

    async def run(self, function: Callable[[], T], within_s: float, *, may_write: bool = False) -> T:
        """Run in a thread.

        Raises:
            Busy: too many wait, or it took longer.
        """
        if self._waiting >= THREADS + WAITING_MAX:
            raise Busy("Too many pages are read at once; try again in a moment.")

        def job() -> T:
            if may_write:
                return function()
            with using(self.engine):
                return function()

        context = contextvars.copy_context()
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, context.run, job)
        future.add_done_callback(self._done)
        if may_write:  # whoever has done something looks next at what has become of it
            future.add_done_callback(lambda _: self.forget())
        try:
            return await asyncio.wait_for(asyncio.shield(future), within_s)
        except TimeoutError:
            raise Busy(
                f"It takes longer than {within_s:g} s; ask for less (a shorter time, one account), or try again."
            ) from None

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # of one that nobody waits for any more

    async def shared(
        self, key: Hashable, fresh_s: float, function: Callable[[], T], *, stale_s: float = 0.0
    ) -> T:
        """Run once for all who ask for the same within so many seconds; within ``stale_s`` nobody waits for it."""
        known = self._shared.get(key)
        if known is None or (
            known.future.done() and not known.is_fresh(fresh_s, _PAUSES if stale_s else 0.0)
        ):
            old = known if known is not None and known.is_good(stale_s) else None
            if old is None or old.following is None:
                known = self._start(function)
                if old is None:
                    self._keep(key, known)
                else:
                    old.following = known
                    known.future.add_done_callback(partial(self._keep, key, known))
            known = old or known
        assert known is not None
        answer: T = await asyncio.shield(known.future)
        return answer

    def _start(self, function: Callable[[], Any]) -> _Answer:
        answer = _Answer(asyncio.ensure_future(self.run(function, READ_S)))
        answer.future.add_done_callback(answer.end)
        return answer

    def _keep(self, key: Hashable, answer: _Answer, _done: object = None) -> None:
        """Keep an answer, and drop the oldest where there are too many."""
        self._shared.pop(key, None)
        while len(self._shared) >= _SHARED_MAX:
            del self._shared[next(iter(self._shared))]
        self._shared[key] = answer

    @property
    def is_busy(self) -> bool:
        """True while anything is read or done."""
        return self._waiting > 0

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what this process keeps under a key, made where it is not there; the oldest goes where there is too much."""
        with self._keeping:
            known: T = self._memory.pop(key) if key in self._memory else make()
            while len(self._memory) >= _KEPT_MAX:
                del self._memory[next(iter(self._memory))]
            self._memory[key] = known
            return known

    def forget(self) -> None:
        """Forget all answers: whoever asks next waits for a new one."""
        self._shared.clear()

    def close(self) -> None:
        """End the threads and the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._engine is not None:
            self._engine.dispose()


def reading_of(request: Request) -> Reading:
    """Return the reading of the request's process."""
    reading: Reading = request.app.state.reading
    return reading


async def in_thread(request: Request, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Read in a thread, over the web's own read-only connection, within ``READ_S``."""
    return await reading_of(request).run(lambda: function(*args, **kwargs), READ_S)


async def shared(
    request: Request,
    key: Hashable,
    fresh_s: float,
    function: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Read in a thread, once for all who ask for the same within so many seconds.

    Args:
        request: of any of them.
        key: what is read, arguments included; nothing that depends on who asks may be read so.
        fresh_s: for which an answer is given again.
        function: what reads.
        args: its arguments.
        kwargs: its named arguments.
    """
    return await reading_of(request).shared(key, fresh_s, lambda: function(*args, **kwargs))


async def shared_stale(
    request: Request,
    key: Hashable,
    fresh_s: float,
    stale_s: float,
    function: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Read as ``shared``; whoever asks within ``stale_s`` gets the answer before, while the next one is read."""
    return await reading_of(request).shared(key, fresh_s, lambda: function(*args, **kwargs), stale_s=stale_s)


async def act(request: Request, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run an action in a thread, with the process's own connection, within ``ACT_S``."""
    return await reading_of(request).run(lambda: function(*args, **kwargs), ACT_S, may_write=True)
