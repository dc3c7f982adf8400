"""Relief of a full broker: the worker ticks and delivers without messages, which the broker refuses.

The scripts that move accepted postbacks go on then (``queue/scripts.py``), but nothing would call them: no tick would make
room, and no loop would be woken. So each worker looks every second how old the last tick is, and where it is late because
the broker is full, it ticks and delivers in threads of its main process. The pool would not do: prefork's children get
their work from the consumer's event loop, and the consumer waits for a full broker as well.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from celery import bootsteps

from postbacks import keys
from postbacks.app import DELIVER, DISPATCH, app
from postbacks.broker import memory
from postbacks.broker.client import client
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError
from postbacks.logs import EventLog
from postbacks.settings import load
from postbacks.worker import shutdown

log = EventLog(__name__)

#: Seconds between two looks.
LOOK_EVERY_S: Final = 1.0
#: Milliseconds after the last tick, of whichever worker, from which on this one ticks by itself; they come every second.
TICK_AFTER_MS: Final = 3000


class Relief(bootsteps.StartStopStep):
    """Watches for a full broker, and relieves it, in a thread of the worker's main process."""

    # Started after the pool, so that its children are forked before there are threads; before the consumer, which waits
    # for a full broker as for one that is away.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._full = False
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="postbacks-relief", daemon=True)
        self._loops: list[threading.Thread] = []

    def start(self, worker: Any) -> None:
        """Begin to look."""
        del worker
        self._watcher.start()

    def stop(self, worker: Any) -> None:
        """Stop looking, and let the loops finish what they have open."""
        del worker
        self._stopped.set()
        shutdown.begin_warm()
        for loop in self._loops:
            loop.join(load().stop_within_s + 1)

    def terminate(self, worker: Any) -> None:
        """Stop looking, at a cold shutdown; the loops are told to end at once."""
        del worker
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                self._look()
            except BrokerError as error:  # ticks and loops that need it say so
                log.debug("relief.broker_lost", str(error))
            except Exception:
                log.exception("relief.failed", "it is tried again")

    def _look(self) -> None:
        late = _tick_is_late()
        if not late and not self._full:
            return
        full = memory.read(client()).share >= memory.FULL_FROM
        if full and not self._full:
            log.warning(
                "broker.full", "it refuses messages; this worker ticks and delivers without, which makes room"
            )
        elif self._full and not full:
            log.info("broker.has_room", "it takes messages again")
        self._full = full
        if not full or not late or shutdown.is_requested():
            return
        _run(DISPATCH)
        # Beside a loop that claims this one ends at once; beside one that only finishes what it has open it claims.
        loop = threading.Thread(target=_run, args=(DELIVER,), name="postbacks-relief-loop", daemon=True)
        self._loops = [*filter(threading.Thread.is_alive, self._loops), loop]
        loop.start()


def _run(name: str) -> None:
    """Run a task of ours in this thread, though no message has come for it."""
    try:
        app.tasks[name]()
    except Exception:
        log.exception("relief.failed", "it is tried again", task=name)


def _tick_is_late() -> bool:
    """Tell whether no tick of any worker has finished for a while."""
    with broker_errors():
        pipe = client().pipeline(transaction=False)
        pipe.get(keys.LAST_TICK)
        pipe.time()
        last_ms, time_reply = pipe.execute()
    return last_ms is None or to_ms(time_reply) - int(float(last_ms)) >= TICK_AFTER_MS
