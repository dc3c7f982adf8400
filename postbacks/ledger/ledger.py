"""Reading the ledger, and what an operator does to one postback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postbacks import keys
from postbacks.broker import broker_errors
from postbacks.catalogue import ORIGINS
from postbacks.errors import UnknownPostback
from postbacks.ledger.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis


#: Records read by one pipeline.
_PAGE: Final = 1000


class DeadPostback(NamedTuple):
    """A dead postback, as far as it matters for sending it again; ``own_url``: its URL came with the call."""

    id: str
    account: str
    reason: str
    own_url: bool


class OpenPostbacks(NamedTuple):
    """Postbacks of an account that are neither delivered nor given up.

    Attributes:
        waiting: in its lanes.
        elsewhere: being sent, in quarantine, or parked for a resend.
    """

    waiting: int
    elsewhere: int


class Ledger:
    """The records of one broker."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def find(self, postback_id: str) -> Record | None:
        """The record of an id, or None where the ledger has none (yet)."""
        with broker_errors():
            fields: dict[bytes, bytes] = self._client.hgetall(keys.record(postback_id))  # type: ignore[assignment]
        return Record.from_hash(postback_id, fields) if fields else None

    def find_many(self, postback_ids: Sequence[str]) -> dict[str, Record | None]:
        """The record of each id, or None where the ledger has none (yet)."""
        records: dict[str, Record | None] = {}
        for start in range(0, len(postback_ids), _PAGE):
            page = postback_ids[start : start + _PAGE]
            pipe = self._client.pipeline(transaction=False)
            for postback_id in page:
                pipe.hgetall(keys.record(postback_id))
            with broker_errors():
                rows = pipe.execute()
            for postback_id, fields in zip(page, rows, strict=True):
                records[postback_id] = Record.from_hash(postback_id, fields) if fields else None
        return records

    def get(self, postback_id: str) -> Record:
        """The record of an id.

        Raises:
            UnknownPostback: says what that may mean.
        """
        record = self.find(postback_id)
        if record is None:
            raise UnknownPostback(
                f"The ledger has no postback {postback_id}: it is not taken in yet (is a worker running?), "
                "was dropped after its retention, or never existed."
            )
        return record

    def ended(self, *, dead: bool, at_most: int) -> list[Record]:
        """The latest dead (or else done) postbacks, newest first."""
        with broker_errors():
            ids: list[bytes] = self._client.zrevrange(keys.DEAD if dead else keys.DONE, 0, at_most - 1)  # type: ignore[assignment]
        found = (self.find(postback_id.decode()) for postback_id in ids)
        return [record for record in found if record is not None]

    def dead(
        self,
        *,
        within_s: float | None = None,
        until_ms: int | None = None,
        account: str | None = None,
        reason: str | None = None,
    ) -> list[DeadPostback]:
        """Return the dead, those that were given up first before the others.

        Args:
            within_s: only those given up within so many seconds.
            until_ms: only those given up until then, on the broker's clock.
            account: only this account's.
            reason: only those that are dead for this reason.
        """
        client: Any = self._client
        found: list[DeadPostback] = []
        with broker_errors():
            seconds, microseconds = client.time()
            since = "-inf" if within_s is None else seconds * 1000 + microseconds // 1000 - within_s * 1000
            until = "+inf" if until_ms is None else until_ms
            ids = [postback_id.decode() for postback_id in client.zrangebyscore(keys.DEAD, since, until)]
            for start in range(0, len(ids), _PAGE):
                page = ids[start : start + _PAGE]
                pipe = client.pipeline(transaction=False)
                for postback_id in page:
                    pipe.hmget(keys.record(postback_id), "account", "reason", "own")
                for postback_id, row in zip(page, pipe.execute(), strict=True):
                    of_account, why, own = ((text or b"").decode("utf-8", "replace") for text in row)
                    if account in {None, of_account} and reason in {None, why}:
                        found.append(DeadPostback(postback_id, of_account, why, own in {"1", "2"}))
        return found

    def open_of(self, account: str) -> OpenPostbacks:
        """Count what an account has that is neither delivered nor given up."""
        client: Any = self._client
        with broker_errors():
            pipe = client.pipeline(transaction=False)
            pipe.hget(keys.BACKLOG, account)
            for group in dict.fromkeys(ORIGINS.values()):
                pipe.llen(keys.lane(keys.lane_name(account, group)))
            backlog, *lanes = pipe.execute()
        waiting = sum(lanes)
        return OpenPostbacks(waiting, max(0, int(backlog or 0) - waiting))
