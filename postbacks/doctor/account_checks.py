"""What may be wrong with accounts: they stand still, they are down, or nobody knows them though events come for them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.doctor.broker_checks import duration
from postbacks.monitor.figures import DOWN_AFTER_S
from postbacks.queue.routes import ON, since_and_state
from postbacks.queue.shares import DOCUMENTS_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postbacks.doctor.scene import Scene

#: Lanes that are put aside, and postbacks that came for accounts which nobody knows, that are looked at.
SAMPLE: Final = 1000
#: Accounts that one check names.
NAMED: Final = 10


class Still(NamedTuple):
    """An account that stands still: in which state (``queue/routes.py``), and since when in ms."""

    state: str
    since_ms: int


class Unrouted(NamedTuple):
    """Postbacks that came for an account that was not known, or without a URL; ``left_ms``: when it was removed."""

    events: int
    reason: str
    left_ms: int | None


def read_still(client: Any) -> dict[str, Still]:
    """Return the accounts that stand still while postbacks of theirs wait, of a sample of the lanes put aside."""
    lanes = (name.decode("utf-8", "replace") for name in client.zrange(keys.DELAYED, 0, SAMPLE - 1))
    names = sorted({lane.rpartition("/")[0] for lane in lanes if "/" in lane and "://" not in lane})
    rows = client.hmget(keys.ROUTES, names) if names else []
    still: dict[str, Still] = {}
    for name, row in zip(names, rows, strict=True):
        since_ms, state = since_and_state(row)
        if state != ON:
            still[name] = Still(state, since_ms)
    return still


def read_down(client: Any, now_ms: int) -> dict[str, int]:
    """Return the accounts with a lane of which every attempt has failed for an hour, with since when, in ms."""
    failing = client.zrange(
        keys.FAILING,
        "-inf",
        now_ms - DOWN_AFTER_S * 1000,
        byscore=True,
        offset=0,
        num=SAMPLE,
        withscores=True,
    )
    pipe = client.pipeline(transaction=False)
    for lane, _ in failing:
        pipe.hget(keys.LANE_STATE + lane.decode(), "failing")
        pipe.hget(keys.ROUTES, lane.rpartition(b"/")[0])
    replies = pipe.execute()
    down: dict[str, int] = {}
    for (lane, since_ms), fails, row in zip(failing, replies[::2], replies[1::2], strict=True):
        _, state = since_and_state(row)
        if fails == b"1" and state == ON:
            down.setdefault(lane.decode("utf-8", "replace").rpartition("/")[0], int(since_ms))
    return down


def read_unrouted(client: Any) -> dict[str, Unrouted]:
    """Return the accounts that events came for and that were not known or had no URL, of the latest events."""
    ids = client.zrevrange(keys.UNROUTED, 0, SAMPLE - 1)
    pipe = client.pipeline(transaction=False)
    for postback_id in ids:
        pipe.hmget(keys.record(postback_id.decode()), "account", "reason")
    counts: Counter[tuple[str, str]] = Counter(
        ((account or b"").decode("utf-8", "replace"), (reason or b"").decode("utf-8", "replace"))
        for account, reason in pipe.execute()
    )
    named = counts.most_common(NAMED)
    pipe = client.pipeline(transaction=False)
    for (account, _), _ in named:
        pipe.zscore(keys.LEFT, account)
    return {
        account: Unrouted(count, reason, None if left_ms is None else int(left_ms))
        for ((account, reason), count), left_ms in zip(named, pipe.execute(), strict=True)
    }


def read_dead_bytes(client: Any) -> dict[str, int]:
    """Return the accounts whose dead take the most memory, and how many bytes."""
    rows = client.zrange(keys.DEAD_BYTES, 0, NAMED - 1, desc=True, withscores=True)
    return {name.decode("utf-8", "replace"): int(score) for name, score in rows}


def many_dead(scene: Scene) -> dict[str, str]:
    """Name accounts whose dead have nearly filled their share of the memory."""
    most = scene.dead_bytes_max
    return {
        name: f"{name or '(no account)'}: {taken / 1e6:,.1f} of {most / 1e6:,.1f} MB"
        for name, taken in scene.dead_bytes.items()
        if taken > most * DOCUMENTS_SHARE
    }


def standing_still(scene: Scene) -> dict[str, str]:
    """Name accounts that stand still while postbacks of theirs wait."""
    return _named(
        {
            name: f"{name}: {state}, for {duration((scene.now_ms - since_ms) / 1000)}"
            for name, (state, since_ms) in sorted(scene.still.items())
        }
    )


def down(scene: Scene) -> dict[str, str]:
    """Name accounts that are down, those first that have been for the longest."""
    return _named(
        {
            name: f"{name} has taken none for {duration((scene.now_ms - since_ms) / 1000)}"
            for name, since_ms in scene.down.items()
        }
    )


def unrouted(scene: Scene) -> dict[str, str]:
    """Name accounts that events came for and that are not known, or that have no URL for them."""
    words = {}
    for name, (events, reason, left_ms) in scene.unrouted.items():
        words[name] = f"{name}: {events:,} ({reason})"
        if left_ms is not None:
            words[name] += f", though it was there until {duration((scene.now_ms - left_ms) / 1000)} ago"
    return words


def _named(words: Mapping[str, str]) -> dict[str, str]:
    """Return the first of them, and how many more there are."""
    named = dict(list(words.items())[:NAMED])
    if len(words) > NAMED:
        named[""] = f"and {len(words) - NAMED} more"
    return named
