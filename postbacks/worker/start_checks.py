"""Start checks: refuse a pool, a concurrency, an account store or a broker that cannot work, with one sentence."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any, NoReturn

import click
from celery import bootsteps
from celery.concurrency import get_implementation
from click.core import ParameterSource

from postbacks.accounts import store
from postbacks.broker.fitness import check
from postbacks.errors import BadSetting, BrokerUnfit, BrokerUnreachable
from postbacks.logs import EventLog
from postbacks.settings import load, unknown_names

log = EventLog(__name__)


class StartChecks(bootsteps.StartStopStep):
    """Checks the worker's options, its settings, its account store and its broker before the pool is made."""

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        if _prefork_is_asked_for():
            worker.pool_cls = get_implementation("prefork")
        pool = pool_of(worker)
        if pool not in {"thread", "prefork"}:
            _refuse(
                f"the pool {pool!r} cannot deliver and tick at the same time; use --pool threads or prefork."
            )
        if int(worker.concurrency) < 2:
            _refuse(
                "a concurrency of 1 cannot deliver and tick at the same time; use --concurrency 2 or more."
            )
        if pool == "prefork" and worker.pool_start_method != "fork":
            _refuse(
                "children that are spawned share no delivering loops with their worker; "
                "use --pool-start-method fork."
            )
        for name in unknown_names():
            log.warning("settings.unknown", f"{name} is no setting of postbacks: is it spelt right?")
        if pool == "thread" and load().accounts:
            _load_account_store()
        try:
            for warning in check():
                log.warning("broker.unsafe", warning)
        except BrokerUnfit as error:
            _refuse(str(error))
        except BrokerUnreachable as error:
            log.warning("broker.unreachable", f"{error} It is waited for.")


def pool_of(worker: Any) -> str:
    """Return the kind of a worker's pool: ``thread``, ``prefork`` or another of Celery's."""
    module: str = worker.pool_cls.__module__
    return module.rpartition(".")[2]


def _load_account_store() -> None:
    """Make an application's own store, without asking it; a child of prefork makes one with connections of its own."""
    try:
        store()
    except BadSetting as error:
        _refuse(str(error))


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"postbacks: {sentence}\n")
    raise SystemExit(2)


def _prefork_is_asked_for() -> bool:
    """Tell whether the command line says ``--pool prefork``.

    celery 5.7 (``celery.bin.worker.WorkersPool``) takes that for its own default and prefers
    ``worker_pool``, which is ``threads`` here: the option would do nothing, without a word.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.get_parameter_source("pool") is not ParameterSource.COMMANDLINE:
        return False
    pool = ""
    for word, following in pairwise([*sys.argv, ""]):
        if word in {"-P", "--pool"}:
            pool = following
        elif word.startswith(("-P", "--pool=")):
            pool = word.removeprefix("-P").removeprefix("--pool=")
    return pool == "prefork"
