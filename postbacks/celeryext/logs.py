"""Logs of ``celery -A postbacks worker`` and ``beat``: Celery's own lines in the form of ours.

Celery makes the handlers (so ``--loglevel`` and ``--logfile`` hold); only their formatters are ours. Lines that Celery
prints beside its log (banners, "Warm shutdown") are left out where each line must be a JSON object.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from typing import Any, Final

import celery.apps.beat
import celery.apps.worker
from celery import signals
from celery.utils.log import get_multiprocessing_logger

from postbacks.app import DELIVER, DISPATCH, app
from postbacks.logs import formatter
from postbacks.settings import load

#: Loggers that write a line for every tick and wake-up, some twice a second.
_TICKING: Final = ("celery.worker.strategy", "celery.app.trace", "celery.beat")


class TicksAreDebug(logging.Filter):
    """Lowers Celery's lines about ticks and wake-ups that went well from INFO to DEBUG."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lower the level of a record about a tick or a wake-up; tell whether the record is written."""
        args: Any = record.args
        if record.levelno != logging.INFO or not args:
            return True
        name = args.get("name") if isinstance(args, Mapping) else args[-1]
        if name not in {DISPATCH, DELIVER}:
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def _on_after_setup(logger: logging.Logger, **_: Any) -> None:
    for handler in (*logger.handlers, *get_multiprocessing_logger().handlers):
        handler.setFormatter(formatter(load().log))
    for name in _TICKING:
        ticking = logging.getLogger(name)
        if not any(isinstance(each, TicksAreDebug) for each in ticking.filters):
            ticking.addFilter(TicksAreDebug())


class _QuietBeat(celery.apps.beat.Beat):
    """Mirrors ``celery.apps.beat.Beat``; differs in printing nothing beside the log."""

    app = app

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"quiet": True})


def _say_in_log(message: str, stream: Any = None) -> None:
    """Mirrors ``celery.apps.worker.safe_say``; differs in writing a line of JSON.

    Signal handlers call this, so no lock of a logging handler may be taken.
    """
    record = logging.LogRecord("celery.apps.worker", logging.INFO, "", 0, message, None, None)
    print(formatter("json").format(record), file=stream or sys.__stderr__, flush=True)


def _on_worker_set_up(instance: Any, **_: Any) -> None:
    instance.quiet = True


@contextmanager
def held() -> Iterator[None]:
    """Hold records back until the form of the logs is known."""
    root, handler = logging.getLogger(), MemoryHandler(capacity=100)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for record in handler.buffer:
            logging.getLogger(record.name).handle(record)


def use() -> None:
    """Set up the logs of a process of ``celery -A postbacks``; called once, by its entry."""
    signals.after_setup_logger.connect(_on_after_setup, weak=False)
    signals.after_setup_task_logger.connect(_on_after_setup, weak=False)
    if load().log == "json":
        signals.celeryd_after_setup.connect(_on_worker_set_up, weak=False)
        celery.apps.worker.safe_say = _say_in_log
        # Until Celery has set its handlers up (and taken this one away) there are warnings already.
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(formatter("json"))
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(capture=True)
        app.Beat = _QuietBeat
