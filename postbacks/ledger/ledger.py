"""The ledger: reads postbacks' records and the claims on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from postbacks import keys
from postbacks.broker.clock import now_ms, to_ms
from postbacks.broker.errors import broker_errors
from postbacks.catalogue import ORIGINS
from postbacks.errors import UnknownPostback
from postbacks.ledger import search
from postbacks.ledger.record import Record, iso
from postbacks.ledger.states import DEAD
from postbacks.version import worker_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from postbacks.ledger.search import Summary


class OpenPostbacks(NamedTuple):
    """Postbacks of an account that are neither delivered nor given up.

    Attributes:
        waiting: in its lanes.
        elsewhere: being sent, in quarantine, or parked for a resend.
    """

    waiting: int
    elsewhere: int


class Claim(NamedTuple):
    """A loop's claim on a postback, and the attempt that is open.

    Attributes:
        token: of the delivering loop.
        ends_ms: when its lease ends, or has ended, on the broker's clock; 0 for a loop that was seen to die.
        attempt: number of the POST that may have begun; None while the postback is held behind a probe.
        since_ms: when that POST began.
        now_ms: the broker's time at the reading.
    """

    token: str
    ends_ms: int
    attempt: int | None
    since_ms: int | None
    now_ms: int

    def to_public_dict(self) -> dict[str, Any]:
        """Return the claim as ``postbacks show --json`` prints it."""
        for_s = None if self.since_ms is None else round((self.now_ms - self.since_ms) / 1000, 1)
        return {
            "attempt": self.attempt,
            "since": iso(self.since_ms),
            "for_s": for_s,
            "worker": worker_of(self.token) or None,
            "loop": self.token.partition("@")[0],
            "lease_ends": iso(self.ends_ms) if self.ends_ms else None,
        }


class Ledger:
    """The records of one broker."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def find(self, postback_id: str) -> Record | None:
        """Read the record of an id; None where the ledger has none (yet)."""
        with broker_errors():
            fields: dict[bytes, bytes] = self._client.hgetall(keys.record(postback_id))  # type: ignore[assignment]
        return Record.from_hash(postback_id, fields) if fields else None

    def claim_of(self, postback_id: str) -> Claim | None:
        """Find the claim on a postback among all loops'; None where none has it (any more)."""
        with broker_errors():
            tokens: list[bytes] = self._client.zrange(keys.CLAIMERS, 0, -1)  # type: ignore[assignment]
            pipe: Any = self._client.pipeline(transaction=True)
            pipe.time()
            pipe.hmget(keys.record(postback_id), "state", "attempts", "sent_ms")
            for token in tokens:
                pipe.zscore(keys.CLAIMERS, token)
                pipe.hget(keys.claims(token.decode()), postback_id)
            time, (state, attempts, sent_ms), *claims = pipe.execute()
        if state != b"sending":
            return None
        for token, ends_ms, begun in zip(tokens, claims[::2], claims[1::2], strict=True):
            if begun is None:
                continue
            is_open = begun != b"0"
            return Claim(
                token=token.decode(),
                ends_ms=int(ends_ms or 0),
                attempt=int(attempts) if is_open else None,
                since_ms=int(float(sent_ms)) if is_open else None,
                now_ms=to_ms(time),
            )
        return None

    def find_many(self, postback_ids: Sequence[str]) -> dict[str, Record | None]:
        """Read the record of each id; None where the ledger has none (yet)."""
        records: dict[str, Record | None] = {}
        for ids in search.pages(postback_ids):
            pipe = self._client.pipeline(transaction=False)
            for postback_id in ids:
                pipe.hgetall(keys.record(postback_id))
            with broker_errors():
                rows = pipe.execute()
            for postback_id, fields in zip(ids, rows, strict=True):
                records[postback_id] = Record.from_hash(postback_id, fields) if fields else None
        return records

    def get(self, postback_id: str) -> Record:
        """Read the record of an id.

        Raises:
            UnknownPostback: the ledger has none; says what that may mean.
        """
        record = self.find(postback_id)
        if record is None:
            raise UnknownPostback(
                f"The ledger has no postback {postback_id}: it is not taken in yet (is a worker running?), "
                "was dropped after its retention, or never existed."
            )
        return record

    def ended(self, *, dead: bool, at_most: int) -> list[Record]:
        """Read the latest dead (or else done) postbacks, newest first."""
        ids = search.ended_ids(self._client, dead=dead, latest=at_most)
        return [record for record in self.find_many(ids).values() if record is not None]

    def dead(
        self,
        *,
        within_s: float | None = None,
        until_ms: int | None = None,
        account: str | None = None,
        reason: str | None = None,
    ) -> list[Summary]:
        """Find the dead, those that were given up first before the others.

        Args:
            within_s: only those given up within so many seconds.
            until_ms: only those given up until then, on the broker's clock.
            account: only this account's.
            reason: only those that are dead for this reason.
        """
        since_ms = None
        if within_s is not None:
            with broker_errors():
                since_ms = now_ms(self._client) - within_s * 1000
        dead = search.find(
            self._client, state=DEAD, account=account, reason=reason, since_ms=since_ms, until_ms=until_ms
        )
        return list(dead)

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
