"""Health: one judgement of the system for ``postbacks health``, ``/readyz`` and a container's check, in bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from postbacks.broker.client import client_for
from postbacks.broker.url import redacted_broker_url
from postbacks.errors import BrokerError, BrokerUnreachable
from postbacks.monitor import snapshot
from postbacks.monitor.moments import duration

if TYPE_CHECKING:
    from postbacks.monitor.snapshot import Snapshot
    from postbacks.queue.pauses import Pause
    from postbacks.settings import Settings

T = TypeVar("T")

#: Seconds below which an age is a moment.
_MOMENT_S: Final = 3


@dataclass(frozen=True, slots=True)
class Health:
    """A judgement.

    Attributes:
        ok: whether all is well.
        broker: whether the broker answers.
        takes_writes: whether the broker would take a postback.
        workers: how many give signs of life.
        beats: how many give signs of life.
        tick_age_s: seconds since a tick last finished.
        oldest_waiting_s: age of the longest waiting postback of a lane that does not fail.
        waiting: postbacks that wait in lanes.
        failing_waiting: of them those of lanes whose last POST failed.
        longest_failing_lane: name of the longest of these lanes; empty where none waits.
        claimers: delivering loops whose lease stands.
        faults: sentences on what is wrong.
        down: accounts that are down, those first that have been for the longest, with their seconds.
        accounts_paused: how many accounts are paused.
        paused: pauses of those of which most waits, and what waits; neither their number nor their age makes a system unwell.
        paused_waiting: postbacks that wait for accounts that are paused; not in ``waiting``.
        oldest_paused_s: seconds since the longest waiting of them was accepted.
        late_opt_outs: opt-outs that are not delivered in time, as the history's recorder last counted them.
        oldest_late_opt_out_s: age of the oldest of them.
        history: sentences on what is wrong with the history. Delivery does not need it, so it makes no system unwell.
    """

    ok: bool
    broker: bool
    takes_writes: bool | None = None
    workers: int | None = None
    beats: int | None = None
    tick_age_s: float | None = None
    oldest_waiting_s: float | None = None
    waiting: int | None = None
    failing_waiting: int | None = None
    longest_failing_lane: str = ""
    claimers: int | None = None
    faults: tuple[str, ...] = ()
    down: tuple[tuple[str, float], ...] = ()
    accounts_paused: int = 0
    paused: tuple[Pause, ...] = ()
    paused_waiting: int = 0
    oldest_paused_s: float = 0.0
    late_opt_outs: int | None = None
    oldest_late_opt_out_s: float | None = None
    history: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The judgement in one line."""
        return self._said(_exactly, "0 wait, the oldest for 0.0 s")

    @property
    def steady_line(self) -> str:
        """The judgement in one line that stays the same while nothing happens, for whoever looks again and again."""
        return self._said(_roughly, "nothing waits")

    def _said(self, age: Callable[[float], str], nothing: str) -> str:
        """Say the judgement.

        Args:
            age: puts seconds into words.
            nothing: says that nothing waits.
        """
        if not self.ok:
            return "not well: " + " ".join(self.faults)
        waiting = self._waiting_words(age) if self.waiting else nothing
        words = f"well: the last tick finished {age(self.tick_age_s or 0)} ago, {waiting}"
        if down := ", ".join(f"{account} for {_long(down_s, age)}" for account, down_s in self.down):
            words += f"; every attempt has failed: {down}"
        words += self._paused_words(age)
        if self.late_opt_outs:
            oldest = f"the oldest for {_long(self.oldest_late_opt_out_s or 0, age)}"
            verb = "opt-out is" if self.late_opt_outs == 1 else "opt-outs are"
            words += f"; {self.late_opt_outs:,} {verb} not delivered in time, {oldest}"
        return f"{words}; history: {' '.join(self.history)}" if self.history else words

    def _paused_words(self, age: Callable[[float], str]) -> str:
        """Say how many accounts are paused, and what waits for them."""
        if not self.accounts_paused:
            return ""
        words = (
            "1 account is paused"
            if self.accounts_paused == 1
            else f"{self.accounts_paused} accounts are paused"
        )
        if not self.paused:
            return f"; {words}, and nothing waits for {'it' if self.accounts_paused == 1 else 'them'}"
        names = ", ".join(pause.account for pause in self.paused)
        more = ", …" if sum(pause.waiting for pause in self.paused) < self.paused_waiting else ""
        oldest = _long(self.oldest_paused_s, age)
        return f"; {words} ({names}{more}): {self.paused_waiting} wait, the oldest for {oldest}"

    def _waiting_words(self, age: Callable[[float], str]) -> str:
        """Say how many wait, and for whom: those of a receiver that fails may wait for long while all is well."""
        waiting, failing = self.waiting or 0, self.failing_waiting or 0
        oldest = f"for {age(self.oldest_waiting_s or 0)}"
        if not failing:
            return f"{waiting} wait, the oldest {oldest}"
        lane = f"for receivers that fail (longest lane: {self.longest_failing_lane})"
        if failing == waiting:
            return f"{waiting} wait, all of them {lane}"
        return f"{waiting} wait, {failing} of them {lane}, the oldest of the others {oldest}"

    def to_public_dict(self) -> dict[str, Any]:
        """Return the object that ``postbacks health --json`` prints."""
        return {
            "ok": self.ok,
            "broker": self.broker,
            "takes_writes": self.takes_writes,
            "workers": self.workers,
            "beats": self.beats,
            "tick_age_s": None if self.tick_age_s is None else round(self.tick_age_s, 3),
            "oldest_waiting_s": None if self.oldest_waiting_s is None else round(self.oldest_waiting_s, 3),
            "waiting": self.waiting,
            "failing_waiting": self.failing_waiting,
            "longest_failing_lane": self.longest_failing_lane or None,
            "claimers": self.claimers,
            "down": {account: round(down_s) for account, down_s in self.down},
            "accounts_paused": self.accounts_paused,
            "paused_waiting": self.paused_waiting,
            "oldest_paused_s": round(self.oldest_paused_s, 3),
            "paused": {pause.account: pause.to_public_dict() for pause in self.paused},
            "late_opt_outs": self.late_opt_outs,
            "oldest_late_opt_out_s": None
            if self.oldest_late_opt_out_s is None
            else round(self.oldest_late_opt_out_s),
            "history": list(self.history),
            "faults": list(self.faults),
        }


def _exactly(age_s: float) -> str:
    return f"{age_s:.1f} s"


def _roughly(age_s: float) -> str:
    """Put an age into words: a tick comes each second, so one of less than three says no more."""
    if age_s < _MOMENT_S:
        return f"less than {_MOMENT_S} s"
    return f"{age_s:.0f} s" if age_s < 60 else f"{age_s // 60:.0f} min"


def _long(age_s: float, age: Callable[[float], str]) -> str:
    """Put an age into words that may be of hours or days; one below an hour as ``age`` does."""
    return age(age_s) if age_s < 3600 else duration(int(age_s * 1000))


def judge(
    settings: Settings,
    *,
    tick_age_s: float | None = None,
    waiting_age_s: float | None = None,
    timeout_s: float = 2.0,
) -> Health:
    """Judge the system as this process sees it; never raises, and takes ``timeout_s`` at most.

    Args:
        settings: the broker and the limits.
        tick_age_s: limit of the last tick's age; None for the setting's.
        waiting_age_s: limit of the longest waiting; None for the setting's.
        timeout_s: for all of it: a broker that does not answer by then counts as gone.
    """
    try:
        client = client_for(settings.broker_url, timeout_s)
        now = with_timeout(
            timeout_s, lambda: snapshot.read(client, settings, within_s=timeout_s / 2, memory=False), settings
        )
    except BrokerError as error:
        return without_broker(error)
    return of_snapshot(now, settings, tick_age_s=tick_age_s, waiting_age_s=waiting_age_s)


def without_broker(error: BrokerError) -> Health:
    """Judge a system whose broker cannot be asked."""
    return Health(ok=False, broker=False, faults=(str(error),))


def of_snapshot(
    now: Snapshot,
    settings: Settings,
    *,
    tick_age_s: float | None = None,
    waiting_age_s: float | None = None,
) -> Health:
    """Judge the system by a snapshot of it, as ``judge`` does."""
    limit_s = settings.health_tick_age_s if tick_age_s is None else tick_age_s
    faults = [now.refusal] if now.refusal else []
    if now.tick_missing_for(limit_s):
        faults += explain_missing_ticks(now, limit_s)
    limit_s = settings.health_waiting_age_s if waiting_age_s is None else waiting_age_s
    if now.oldest_waiting_s > limit_s:
        age = f"A postback has waited for {now.oldest_waiting_s:.0f} s (limit {limit_s:g} s)"
        faults.append(f"{age}: are there workers, and enough of them?")
    return Health(
        ok=not faults,
        broker=True,
        takes_writes=not now.refusal,
        workers=len(now.workers.names),
        beats=len(now.beats.names),
        tick_age_s=now.tick_age_s,
        oldest_waiting_s=now.oldest_waiting_s,
        waiting=now.open_waiting,
        failing_waiting=now.failing_waiting,
        longest_failing_lane=now.longest_failing_lane,
        claimers=now.loops,
        faults=tuple(faults),
        down=tuple(now.down.items())[: settings.metrics_top_accounts],
        accounts_paused=now.accounts_paused,
        paused=tuple(
            sorted(now.paused.values(), key=lambda pause: -pause.waiting)[: settings.metrics_top_accounts]
        ),
        paused_waiting=now.paused_waiting,
        oldest_paused_s=now.oldest_paused_s,
        late_opt_outs=now.history.late_opt_outs if now.history else None,
        oldest_late_opt_out_s=_oldest_late_opt_out_s(now),
        history=_faults_of_history(now, settings),
    )


def _oldest_late_opt_out_s(now: Snapshot) -> float | None:
    feed = now.history
    if feed is None or feed.oldest_late_opt_out_ms is None or feed.now_ms is None:
        return None
    return max(0.0, (feed.now_ms - feed.oldest_late_opt_out_ms) / 1000)


def _faults_of_history(now: Snapshot, settings: Settings) -> tuple[str, ...]:
    """Say what is wrong with the history, as far as the broker knows: its database is not asked."""
    if now.history is None:
        return ()
    from postbacks.history.status import StoreStatus, faults  # noqa: PLC0415 - most health checks do without it

    return tuple(faults(now.history, StoreStatus(), settings))


def explain_missing_ticks(now: Snapshot, limit_s: float) -> list[str]:
    """Say since when ticks are missing, and which process is; a sentence each."""
    age = (
        "No tick has ever finished"
        if now.tick_age_s is None
        else f"The last tick finished {now.tick_age_s:.0f} s ago (limit {limit_s:g} s)"
    )
    if not now.takes_signs:
        return [f"{age}."]
    if now.missing:
        missing = (
            f"No {kind} has been heard of{presence.since}: start one (celery -A postbacks {kind})."
            for kind, presence in now.missing.items()
        )
        return [f"{age}.", *missing]
    signs = " and ".join(
        f"a {kind} was heard of {presence.age_s or 0:.0f} s ago" for kind, presence in now.presence.items()
    )
    return [f"{age}, though {signs}: their logs say why."]


def with_timeout(timeout_s: float, ask: Callable[[], T], settings: Settings) -> T:
    """Ask in a thread of its own, so that neither a frozen broker nor a name's look-up can hold the caller.

    Raises:
        BrokerUnreachable: the answer took longer.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked
            errors.append(error)

    thread = threading.Thread(target=run, name="postbacks-ask", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not answers:
        url = redacted_broker_url(settings.broker_url)
        raise BrokerUnreachable(
            f"The broker at {url} does not answer within {timeout_s:g} s; is it frozen, or overloaded?"
        )
    return answers[0]
