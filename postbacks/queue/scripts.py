"""Moves of postbacks: a Python method for each Lua script, arguments in, plain values out.

Each script gets the clock's offset and the keys that it names (``broker/lua.py``); its file says what it does.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.broker.lua import Script, load
from postbacks.killpoints import reach
from postbacks.ledger.footprint import OVERHEAD_BYTES, STUB_BYTES
from postbacks.queue.rows import (
    Begun,
    BegunRow,
    ClaimRow,
    CommittedRow,
    HeldRow,
    JobWatched,
    Retained,
    RoomMade,
    SliceMoved,
    TakenIn,
)
from postbacks.version import SILENT, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import redis

    from postbacks.ledger.record import Attempt
    from postbacks.queue.rows import AcceptRow, AttemptRow, JobItem, PutBackRow
    from postbacks.queue.shares import Shares

#: Parts that stand in front of a script, behind ``_shared.lua`` and in this order.
_PACED: Final = ("_pacing", "_slow_start", "_waiting")
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "accept": ("_changes", "_drop"),
    "begin": ("_changes", *_PACED, "_routes"),
    "cancel": ("_changes", "_cancel"),
    "claim": ("_changes", *_PACED, "_routes", "_priority"),
    "commit": ("_changes", *_PACED, "_routes"),
    "drop": ("_changes", "_drop"),
    "erase": ("_changes",),
    "examine": ("_changes", *_PACED, "_routes"),
    "give_back": ("_changes",),
    "limit_changes": ("_changes",),
    "make_room": ("_changes", "_drop"),
    "move_job": ("_changes", "_drop", "_resend", "_cancel", "_job"),
    "postpone": ("_changes", *_PACED),
    "put_back": ("_changes", "_drop", "_resend"),
    "reap": ("_changes", *_PACED),
    "replay": ("_changes", "_drop", "_resend"),
    "retain": ("_changes", "_drop"),
    "resume": _PACED,
    "retire": ("_changes", *_PACED),
    "retract": ("_changes", "_drop"),
    "set_pacing": _PACED,
    "set_routes": _PACED,
    "watch_job": ("_job",),
}

#: Milliseconds after the last one from which on a tick is late; they come every second.
LATE_MS: Final = 2500

Argument = str | bytes | int | float

#: Postbacks, or messages, that are tried together after their process died.
FEW: Final = 20
#: Bytes of messages after which ``take_in`` takes no further one: a larger reply would hold the broker up.
TAKE_IN_BYTES: Final = 4_000_000
#: Accounts whose route or pacing one script writes, or whose pause it ends.
ACCOUNTS_MAX: Final = 100
#: Ids that ``cancel`` looks at from each end of a lane; what stands deeper inside ends when it comes up.
CANCEL_SEARCH: Final = 1000
#: Deaths of a process while a postback was alone in it after which the postback is dead, as poison.
ALONE_DEATHS_MAX: Final = 3

#: The same where nobody saw a death, only a lease that ran out: the whole container died, or the broker was away.
ALONE_LAPSES_MAX: Final = 10


class Call(NamedTuple):
    """Call of a script: its name and arguments."""

    name: str
    arguments: Sequence[Argument]


@cache
def assemble(name: str) -> Script:
    """Put a move together with the parts that it needs in front of it."""
    return load(
        "queue/_shared", *(f"queue/{part}" for part in _PARTS.get(name, ())), f"queue/{name}", when_full=True
    )


def claim_call(
    token: str,
    lease_ms: int,
    *,
    at_most: int,
    suspects_max: int,
    free: int,
    held_max: int,
    held_per_lane: int,
    slow_lanes: Iterable[str],
    endpoint_max: int = 0,
    weights: str = "mt=0",
    shares: tuple[int, int, int] | None = None,
) -> Call:
    """Make the call of ``claim.lua``.

    Args:
        token: the loop's.
        lease_ms: of the loop's claims.
        at_most: POSTs to begin.
        suspects_max: POSTs of them for suspects.
        free: transfers that the loop has free.
        held_max: ids to hold in all.
        held_per_lane: ids to hold of a failing lane, its probe included.
        slow_lanes: lanes that have become slow since the last call.
        endpoint_max: POSTs that an endpoint may have open, 0 for any number.
        weights: of groups.
        shares: of ``suspects_max``: lanes in trouble, new lanes, new lanes that have waited; None for all of it each.
    """
    limits = (at_most, suspects_max, free, held_max, held_per_lane, endpoint_max, weights)
    return Call("claim", (token, lease_ms, *limits, *(shares or (suspects_max,) * 3), *slow_lanes))


def examine_call(token: str, lease_ms: int, endpoint_max: int = 0, keep_ms: int = 3_600_000) -> Call:
    """Make the call of ``examine.lua``; what waits for an account that is gone is kept for ``keep_ms``."""
    return Call("examine", (token, lease_ms, FEW, endpoint_max, keep_ms))


def commit_call(
    token: str,
    lease_ms: int,
    limit_max: int,
    forget_s: int,
    rows: Iterable[AttemptRow],
    totals: Mapping[str, int] = {},
) -> Call:
    """Make the call of ``commit.lua``: its rows one after the other, and what is added to the totals."""
    fields: Iterable[Argument] = chain.from_iterable(rows)
    return Call("commit", (token, lease_ms, limit_max, forget_s, *fields, json.dumps(totals)))


class Scripts:
    """Runs scripts on one broker.

    Args:
        client: the broker's client; replies come as bytes.
        clock_offset_ms: added to the broker's clock, so that tests can move time; 0 otherwise.
    """

    def __init__(self, client: redis.Redis, *, clock_offset_ms: int = 0) -> None:
        self.client = client
        self.clock_offset_ms = clock_offset_ms

    def run(self, name: str, arguments: Iterable[Argument]) -> Any:
        """Run a script by name; load it where the broker does not have it, as it is new or has restarted."""
        _, *command = self.command(Call(name, tuple(arguments)))
        reach(f"before:{name}")
        with broker_errors():
            try:
                reply = self.client.evalsha(*command)
            except NoScriptError:
                self.client.script_load(assemble(name).text)
                reply = self.client.evalsha(*command)
        reach(f"after:{name}")
        return reply

    def command(self, call: Call) -> list[Any]:
        """Write a call as the broker's command."""
        script = assemble(call.name)
        return [
            "EVALSHA",
            script.digest,
            len(script.keys),
            *script.keys,
            self.clock_offset_ms,
            *call.arguments,
        ]

    def take_in(self, token: str, lease_ms: int, at_most: int) -> TakenIn | None:
        """Take messages from Celery's queue, oldest first, until they are so many or so many bytes.

        None if another tick holds the intake.
        """
        arguments = (token, lease_ms, at_most, FEW, TAKE_IN_BYTES)
        reply: list[Any] | None = self.run("take_in", arguments)
        return None if reply is None else TakenIn(*reply)

    def accept(
        self,
        token: str,
        schema: int,
        units_max: int,
        documents_bytes_max: int,
        messages: int,
        rows: Iterable[AcceptRow],
        overhead_bytes: int = OVERHEAD_BYTES,
    ) -> list[int] | None:
        """Turn the first messages of the intake into records; None if the lease was lost.

        Args:
            token: the tick's name at the intake's lease.
            schema: version of the layout of records.
            units_max: ``Shares.units``.
            documents_bytes_max: ``Shares.documents_bytes``.
            messages: how many of the intake these are.
            rows: the postbacks that these are.
            overhead_bytes: what a record takes beside its texts (``ledger/footprint.py``).

        Returns:
            A number a postback, by its name in ``ledger/states.py``.
        """
        sizes = (overhead_bytes, STUB_BYTES, documents_bytes_max)
        reply: list[int] | None = self.run(
            "accept", (token, schema, units_max, *sizes, messages, *chain.from_iterable(rows))
        )
        return reply

    def accept_alone(self, token: str) -> None:
        """Note that from here on only the first message of the intake can be what the tick dies of."""
        self.run("accept_alone", (token,))

    def end_intake(self, token: str) -> None:
        """Give the intake's lease back."""
        self.run("end_intake", (token,))

    def release(self, at_most: int) -> int:
        """Move due parked postbacks to their lanes; return how many."""
        return int(self.run("release", (at_most,)))

    def reap(self, at_most: int, pause_ms: int) -> int:
        """Take back what a silent loop had claimed; return how many."""
        arguments = (at_most, pause_ms, ALONE_DEATHS_MAX, ALONE_LAPSES_MAX)
        return int(self.run("reap", arguments))

    def examine(self, token: str, lease_ms: int, endpoint_max: int = 0) -> tuple[int, list[ClaimRow], int]:
        """Take from the quarantine, a few or one alone.

        Returns:
            The broker's ms, rows as claim's, and how many of those looked at wait for room.
        """
        now_ms, begun, later, *_ = self.run(*examine_call(token, lease_ms, endpoint_max))
        return now_ms, [ClaimRow(*row) for row in begun], later

    def claim(self, *arguments: Any, **limits: Any) -> tuple[int, list[ClaimRow], list[HeldRow], int]:
        """Claim from the ready lanes, with the arguments of ``claim_call``.

        Returns:
            The broker's ms, rows to send now, rows to hold, and the ms until the first lane may go on that waits
            for its rate or for room, or, where few loops claim, the first parked postback is due (-1 if none is).
        """
        now_ms, begun, held, again_ms, *_ = self.run(*claim_call(*arguments, **limits))
        return now_ms, [ClaimRow(*row) for row in begun], [HeldRow(*row) for row in held], again_ms

    def begin(self, token: str, ids: Iterable[str], endpoint_max: int = 0, known_ms: int = 0) -> Begun:
        """Count an attempt for held ids that are about to be sent.

        Args:
            token: the loop's.
            ids: of what it holds.
            endpoint_max: POSTs that an endpoint may have open, 0 for any number.
            known_ms: the latest of ``Begun.tried`` that the loop knows of.
        """
        begun = Begun(*self.run("begin", (token, endpoint_max, known_ms, *ids)))
        return begun._replace(rows=[BegunRow(*row) for row in begun.rows])

    def set_pacing(self, accounts: Mapping[str, str]) -> int:
        """Write the pacing of accounts (``pacing.py``); return how many of them changed."""
        return sum(int(self.run("set_pacing", fields)) for fields in _rows(accounts))

    def set_routes(self, keep_ms: int, rows: Mapping[str, str]) -> int:
        """Write the routes of accounts (``routes.py``); return how many rows changed.

        Args:
            keep_ms: time for which what waits for an account that is gone is kept.
            rows: account -> its row.
        """
        return sum(int(self.run("set_routes", (keep_ms, *fields))) for fields in _rows(rows))

    def pause(self, account: str, ends_ms: int | None, details: str) -> int | None:
        """Let an account stand still; return since when it does (ms), None where it has no row or the end has passed.

        Args:
            account: the account's name.
            ends_ms: when the pause ends by itself; None for never.
            details: of the pause, as JSON.
        """
        since_ms: int | None = self.run("pause", (account, "" if ends_ms is None else ends_ms, details))
        return since_ms

    def resume(self, account: str = "") -> list[str]:
        """End the pause of an account, or of some whose pause was to end by now; return those that were paused."""
        return [name.decode() for name in self.run("resume", (account, ACCOUNTS_MAX))]

    def retire(self, at_most: int) -> tuple[int, list[str]]:
        """End what waits for accounts that are gone; return how many have ended, and whose they were."""
        ended, accounts = self.run("retire", (at_most,))
        return ended, [account.decode() for account in accounts]

    def commit(self, *arguments: Any, **more: Any) -> list[CommittedRow]:
        """Note attempts and move their postbacks on, with the arguments of ``commit_call``; return what became of each."""
        return [CommittedRow(*row) for row in self.run(*commit_call(*arguments, **more))]

    def give_back(self, token: str, ids: Iterable[str] = ()) -> int:
        """Put held ids back to the front of their lanes; a loop that holds nothing leaves the claimers."""
        return int(self.run("give_back", (token, *ids)))

    def postpone(self, token: str, delay_ms: int, reason: str, ids: Iterable[str]) -> int:
        """Park claimed ids whose POST was not made, and take their attempt back; return how many left the claims."""
        return int(self.run("postpone", (token, delay_ms, reason, *ids)))

    def renew(self, token: str, lease_ms: int) -> bool:
        """Keep a lease; False if it was lost."""
        return bool(self.run("renew", (token, lease_ms)))

    def cancel(
        self, postback_id: str, remember_s: int, account: str = "", search_max: int = CANCEL_SEARCH
    ) -> str:
        """Cancel a postback that is not yet sent; return its state afterwards.

        Args:
            postback_id: its id.
            remember_s: how long an id that is not known yet is remembered.
            account: cancel this account's alone; empty for whosever it is.
            search_max: ids of its lane that are looked at from each end.
        """
        return text(self.run("cancel", (postback_id, remember_s, account, search_max)))

    def replay(self, postback_id: str, by: str = "") -> str:
        """Send a dead or skipped postback again; return its state afterwards, empty if it is unknown.

        ``queued``: a message that only a newer version could read was put back into Celery's queue.
        """
        from postbacks.queue.message import NEWER  # noqa: PLC0415 - a health check does without the catalogue

        return text(self.run("replay", (postback_id, NEWER, by)))

    def put_back(self, schema: int, row: PutBackRow, attempts: Iterable[Attempt], by: str = "") -> str:
        """Send a postback again whose record has left the broker; return the state afterwards of what has its id.

        Args:
            schema: version of the layout of records.
            row: the postback.
            attempts: its attempts so far.
            by: who sends it again.
        """
        return text(self.run("put_back", (schema, OVERHEAD_BYTES, by, *row, *_notes(attempts))))

    def move_job(
        self,
        job: str,
        account: str,
        cursor: str,
        items: Iterable[JobItem],
        *,
        is_last: bool,
        schema: int,
        units_max: int,
        first: int,
        waiting_max: int,
    ) -> SliceMoved:
        """Move a slice of an account's part of a job, and the part's cursor with it.

        Args:
            job: its id.
            account: the account.
            cursor: that the part had when the slice was read.
            items: the slice.
            is_last: True where nothing of the part is behind it.
            schema: version of the layout of records.
            units_max: units that a group of the account may have open with what is sent again.
            first: postbacks of the account that go first.
            waiting_max: postbacks of the job that may wait.
        """
        from postbacks.queue.message import NEWER  # noqa: PLC0415 - as in ``replay``

        limits = (units_max, CANCEL_SEARCH, first, waiting_max)
        arguments = (job, account, cursor, int(is_last), schema, OVERHEAD_BYTES, NEWER, *limits)
        why, part, moved = self.run(
            "move_job", chain(arguments, chain.from_iterable(item.arguments() for item in items))
        )
        return SliceMoved(text(why), text(part), [text(postback_id) for postback_id in moved])

    def watch_job(
        self, job: str, scan: str, count: int, row_max: int, answers: Mapping[str, str] = {}
    ) -> JobWatched:
        """Look at some of what a job has moved and note the answers.

        Args:
            job: its id.
            scan: where to go on, ``0`` at first; empty to look at none.
            count: about how many to look at.
            row_max: failures in a row that pause an account's part.
            answers: of those whose record has left the broker: id -> empty for delivered, or what it failed of.
        """
        scan_next, parts, paused, gone = self.run(
            "watch_job", (job, scan, count, row_max, *chain.from_iterable(answers.items()))
        )
        pairs = iter(map(text, parts))
        return JobWatched(
            text(scan_next),
            dict(zip(pairs, pairs, strict=True)),
            [text(account) for account in paused],
            [text(postback_id) for postback_id in gone],
        )

    def change_job(
        self,
        job: str,
        states: Iterable[str],
        to: str,
        fields: Mapping[str, str] = {},
        *,
        how: str = "",
    ) -> str:
        """Bring a job that is in one of these states into another; return the state that it was in, empty for no such job.

        Args:
            job: its id.
            states: that it may be in; in any other nothing is changed.
            to: the state that it comes into.
            fields: that are written; an empty value takes a field away.
            how: ``resume`` where parts that have paused themselves go on; ``stuck`` to change nothing unless all that are
                left have (``going`` is returned then).
        """
        arguments: tuple[Argument, ...] = (job, " ".join(states), to, how)
        arguments += tuple(chain.from_iterable(fields.items()))
        return text(self.run("change_job", arguments))

    def forget(self, idle_ms: int) -> tuple[int, list[str]]:
        """Drop the latest numbers of some accounts that have been idle for so long.

        Returns:
            How many were dropped, and some accounts whose rows are as old, to be looked up.
        """
        dropped, old = self.run("forget", (idle_ms, SILENT))
        return dropped, [account.decode() for account in old]

    def retract(self, postback_id: str) -> bool:
        """Drop a postback that was kept as dead for its id; False where it is not kept any more."""
        return bool(self.run("retract", (postback_id,)))

    def retain(
        self,
        done_s: float,
        dead_s: float,
        unrouted_s: float,
        may_take: Shares,
        at_most: int,
    ) -> Retained:
        """Drop records older than these ages or past their share of the memory.

        Args:
            done_s: age of the delivered, skipped and cancelled.
            dead_s: age of the dead.
            unrouted_s: age of the dead of unknown accounts and without a URL.
            may_take: shares of the memory.
            at_most: records that one call drops.
        """
        ages_ms = (-int(age_s * 1000) for age_s in (done_s, dead_s, unrouted_s))
        arguments = (
            *ages_ms, may_take.ledger_bytes, may_take.unrouted_bytes, at_most, may_take.dead_bytes,
            may_take.documents_bytes,
        )  # fmt: skip
        dropped, accounts, counts, near, unrecorded = self.run("retain", arguments)
        early = {text(account): count for account, count in zip(accounts, counts, strict=True)}
        return Retained(dropped, early, [text(account) for account in near], unrecorded)

    def make_room(
        self, done_bytes: int, dead_bytes: int, keep_bytes: int, at_most: int, feed_bytes: int
    ) -> RoomMade:
        """Drop the oldest that are done, and where they do not do dead ones, until so many bytes are free.

        Args:
            done_bytes: that done ones are to free.
            dead_bytes: that dead ones are to free, less what the done ones have freed.
            keep_bytes: that the ledger may take all the same.
            at_most: records that are dropped.
            feed_bytes: that the feed of the history may take all the same.
        """
        arguments = (done_bytes, dead_bytes, keep_bytes, at_most, feed_bytes)
        done, dead, accounts, entries, unrecorded = self.run("make_room", arguments)
        return RoomMade(done, dead, {text(account) for account in accounts}, entries, unrecorded)

    def limit_changes(self, at_most_bytes: int, silent_max_ms: int, reason: str) -> tuple[int, bool]:
        """Hold the feed of the history under its share, and turn it off where no recorder has been there for too long.

        Args:
            at_most_bytes: that the feed may take.
            silent_max_ms: time without a sign of a recorder after which it is turned off.
            reason: what is noted then.

        Returns:
            How many entries were dropped, and whether it was turned off.
        """
        dropped, is_off = self.run("limit_changes", (at_most_bytes, silent_max_ms, reason))
        return dropped, bool(is_off)

    def drop(self, until_ms: int, account: str, ids: Iterable[str]) -> int:
        """Drop those of these ids that are dead, of this account (empty: any) and given up until then; return how many."""
        return int(self.run("drop", (until_ms, account, *ids)))

    def erase(self, request: str, ids: Iterable[str]) -> int:
        """Take from those of these ids that have ended what identifies a person; return how many were erased."""
        return int(self.run("erase", (request, *ids)))

    def erase_messages(self, request: str, lease_ms: int, messages: Sequence[bytes]) -> list[bool]:
        """Take messages out of Celery's queue and the intake; tell of each whether it is gone.

        Args:
            request: the request that it is done for.
            lease_ms: that a tick holds the intake (``POSTBACKS_INTAKE_LEASE_S``).
            messages: as they stand there.
        """
        return [
            bool(gone)
            for gone in self.run("erase_messages", (request, f"forget:{request}", lease_ms, *messages))
        ]

    def note_tick(self) -> int:
        """Note that a tick of this version has finished; return the ms since the tick before, -1 without one."""
        return int(self.run("note_tick", (VERSION, SILENT, LATE_MS)))


def _notes(attempts: Iterable[Attempt]) -> Iterator[Argument]:
    """Return attempts as a script takes notes: number and JSON, in turn."""
    return chain.from_iterable((attempt.number, attempt.to_json()) for attempt in attempts)


def _rows(accounts: Mapping[str, str]) -> Iterator[list[str]]:
    """Split accounts into rows of arguments, name and text after each other, ``ACCOUNTS_MAX`` accounts each."""
    pairs = list(accounts.items())
    for first in range(0, len(pairs), ACCOUNTS_MAX):
        yield [text for pair in pairs[first : first + ACCOUNTS_MAX] for text in pair]
