"""Versions of postbacks that work on a broker: a loop's stands in its token, a tick's in a hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from packaging.version import InvalidVersion, Version

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.clock import to_ms
from postbacks.broker.errors import broker_errors
from postbacks.version import SILENT, VERSION, version_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import redis

#: Seconds for which a tick counts as the work of its version.
RECENT_S: Final = 60.0
#: The first version whose workers send an account's Authorization header, open a seal that is bound to its account, and
#: send a postback where its account says at that time.
SEALS_SINCE: Final = "0.2.0"


def versions_at_work(
    claimers: Iterable[str], ticks: Mapping[str, int], last_tick_ms: int | None, now_ms: int
) -> dict[str, set[str]]:
    """Return each version that works, and its work: ``delivers``, ``ticks``.

    Args:
        claimers: tokens of the delivering loops.
        ticks: version -> when a tick of it last finished.
        last_tick_ms: when any tick last finished; one that is in ``ticks`` of no version is a silent version's.
        now_ms: the broker's time.
    """
    work: dict[str, set[str]] = {}
    for token in claimers:
        work.setdefault(version_of(token), set()).add("delivers")
    recent_ms = now_ms - RECENT_S * 1000
    for version, at_ms in ticks.items():
        if at_ms >= recent_ms:
            work.setdefault(version, set()).add("ticks")
    if (
        last_tick_ms is not None
        and last_tick_ms >= recent_ms
        and last_tick_ms > max(ticks.values(), default=0)
    ):
        work.setdefault(SILENT, set()).add("ticks")
    return work


def read_versions(client: redis.Redis, *, clock_offset_ms: int = 0) -> dict[str, set[str]]:
    """Read the versions that work on the broker now, and their work; the offset moves the clock in tests."""
    with broker_errors():
        pipe: Any = client.pipeline(transaction=True)
        pipe.zrange(keys.CLAIMERS, 0, -1)
        pipe.hgetall(keys.TICKS)
        pipe.get(keys.LAST_TICK)
        pipe.time()
        claimers, ticks, last_tick, time = pipe.execute()
    return versions_at_work(
        [text(token) for token in claimers],
        {text(version): int(float(at_ms)) for version, at_ms in ticks.items()},
        None if last_tick is None else int(float(last_tick)),
        to_ms(time) + clock_offset_ms,
    )


def is_before(version: str, first: str) -> bool:
    """Tell whether a version lacks what ``first`` has brought; one that cannot be compared does, unless it is ours."""
    try:
        return version != VERSION and Version(version) < Version(first)
    except InvalidVersion:
        return True
