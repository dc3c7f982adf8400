"""Search of the ledger: summaries of postbacks that have ended, read in pipelined pages.

A field to search by stands in three places: ``_read`` asks for it, ``Summary`` holds it, ``find`` compares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.ledger.states import DEAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis

#: Records read by one pipeline.
PAGE: Final = 1000


class Summary(NamedTuple):
    """Summary of a postback: enough to choose it, and to send it again.

    Attributes:
        id: its id.
        state: its state.
        account: its account; empty for a message that only a newer version could read.
        reason: why it was not delivered.
        own_url: True if its URL came with the call.
        is_stub: True if its document was not kept.
        is_opt_out: True for an opt-out.
    """

    id: str
    state: str
    account: str
    reason: str
    own_url: bool
    is_stub: bool
    is_opt_out: bool = False


def find(
    client: redis.Redis,
    *,
    state: str | None = DEAD,
    account: str | None = None,
    reason: str | None = None,
    since_ms: float | None = None,
    until_ms: float | None = None,
    newest_first: bool = False,
) -> Iterator[Summary]:
    """Find postbacks that have ended, in the order in which they ended; read each page when the caller asks for it.

    Args:
        client: of the broker.
        state: ``dead``, ``delivered``, ``skipped`` or ``cancelled``; None for all but the dead.
        account: only this account's.
        reason: only those that were not delivered for this reason.
        since_ms: only those that ended then or later, on the broker's clock.
        until_ms: only those that ended then or earlier.
        newest_first: the other way round.

    Raises:
        BrokerError: the broker cannot be used.
    """
    is_dead = state == DEAD
    ended = ended_ids(client, dead=is_dead, since_ms=since_ms, until_ms=until_ms)
    for ids in pages(ended[::-1] if newest_first else ended):
        for summary in _read(client, ids):
            if (
                (is_dead or state in {None, summary.state})
                and account in {None, summary.account}
                and reason in {None, summary.reason}
            ):
                yield summary


def ended_ids(
    client: redis.Redis,
    *,
    dead: bool,
    since_ms: float | None = None,
    until_ms: float | None = None,
    latest: int | None = None,
) -> list[str]:
    """Read the ids of the dead, or else of those that are done.

    Args:
        client: of the broker.
        dead: the dead; else delivered, skipped and cancelled ones.
        since_ms: only those that ended then or later, on the broker's clock.
        until_ms: only those that ended then or earlier.
        latest: at most so many, newest first; without it all, in the order in which they ended.

    Raises:
        BrokerError: the broker cannot be used.
    """
    since: Any = "-inf" if since_ms is None else since_ms
    until: Any = "+inf" if until_ms is None else until_ms
    index = keys.DEAD if dead else keys.DONE
    with broker_errors():
        ids: Any = (
            client.zrangebyscore(index, since, until)
            if latest is None
            else client.zrange(index, until, since, desc=True, byscore=True, offset=0, num=latest)
        )
    return [postback_id.decode() for postback_id in ids]


def pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut ids into pages, each read by one pipeline."""
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


def _read(client: redis.Redis, ids: Sequence[str]) -> Iterator[Summary]:
    """Read the summaries of a page; a postback that has left the ledger meanwhile has none."""
    pipe: Any = client.pipeline(transaction=False)
    for postback_id in ids:
        pipe.hmget(keys.record(postback_id), "state", "account", "reason", "own", "stub", "opt_out")
    with broker_errors():
        rows = pipe.execute()
    for postback_id, row in zip(ids, rows, strict=True):
        state, account, reason, own, stub, opt_out = (text(field or b"") for field in row)
        if state:
            yield Summary(postback_id, state, account, reason, own in {"1", "2"}, bool(stub), bool(opt_out))
