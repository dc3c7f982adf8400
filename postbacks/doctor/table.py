"""Every check, one row each: what it examines, what a finding means, what to do, and what ``--fix`` does about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from postbacks.broker import sentinel
from postbacks.doctor import account_checks, audit, broker_checks, history_checks, process_checks
from postbacks.doctor.broker_checks import WHOLE, duration
from postbacks.ledger.record import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from postbacks.doctor.inspection import Inspection

#: Seconds after which the postback that waits the longest is worth a word.
OLDEST_S: Final = 60.0
#: Seconds after which one in quarantine should have been tried: a lease and some turns.
QUARANTINE_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Check:
    """Row of the table of checks.

    Attributes:
        name: how it is called.
        level: ``wrong`` makes the exit code 1; a ``note`` is worth knowing.
        looks_at: what it examines and what is right there, for docs/doctor.md.
        message: what a finding means; the findings follow.
        remedy: what to do.
        check: finds what is at fault in an inspection: subject (an id, a lane, a token; empty for the whole) -> words.
        fix: what ``--fix`` does; empty where a person has to decide.
    """

    name: str
    level: Literal["wrong", "note"]
    looks_at: str
    message: str
    remedy: str
    check: Callable[[Inspection], dict[str, str]]
    fix: str = ""


def _replicas(inspection: Inspection) -> dict[str, str]:
    return broker_checks.replicas(inspection) | broker_checks.too_few(inspection)


def _sentinels(inspection: Inspection) -> dict[str, str]:
    settings = inspection.settings
    if not sentinel.is_sentinel(settings.broker_url):
        return {}
    return sentinel.troubles(settings.broker_url, settings.broker_timeout_s)


def _faults(name: str) -> Callable[[Inspection], dict[str, str]]:
    return lambda inspection: dict(inspection.audit.faults.get(name, {}))


def _schemas(inspection: Inspection) -> dict[str, str]:
    schemas = inspection.audit.schemas
    if set(schemas) <= {str(SCHEMA)}:
        return {}
    return {version: f"version {version}: {count:,}" for version, count in sorted(schemas.items())}


def _quarantine(inspection: Inspection) -> dict[str, str]:
    count = inspection.snapshot.quarantined
    return {WHOLE: f"{count:,} in quarantine"} if count else {}


def _quarantine_old(inspection: Inspection) -> dict[str, str]:
    since_ms = inspection.details.quarantined_ms
    age_s = 0.0 if since_ms is None else (inspection.snapshot.now_ms - since_ms) / 1000
    return {WHOLE: f"one was last sent {duration(age_s)} ago"} if age_s > QUARANTINE_S else {}


def _dead(inspection: Inspection) -> dict[str, str]:
    reasons = inspection.audit.reasons.most_common(10)
    return {reason[:80]: f"{count:,} {reason[:80]}" for reason, count in reasons}


def _oldest(inspection: Inspection) -> dict[str, str]:
    waiting = sorted(inspection.snapshot.waiting, key=lambda part: (part.group, part.oldest_s))
    return {
        part.group: f"{part.group}: for {duration(part.oldest_s)}, in {part.oldest_lane}"
        for part in waiting
        if part.oldest_s > OLDEST_S
    }


def _incomplete(inspection: Inspection) -> dict[str, str]:
    findings = {}
    if not inspection.audit.complete:
        findings[WHOLE] = f"looked at {inspection.audit.progress}"
    if not inspection.snapshot.complete:
        findings["accounts"] = "more accounts have postbacks on their way than are asked for what waits"
    return findings


_REDO: Final = (
    "puts each where its record says (a POST that nobody noted stands as unknown and is sent again)"
)

#: In the order in which one would ask: what stands further up explains what stands below.
CHECKS: Final = (
    # -- the broker ------------------------------------------------------------------------
    Check(
        "version", "wrong", "the broker's version: Redis 7.0, Valkey 8.0 or newer",
        "The broker is too old", "Upgrade it; postbacks uses commands that it does not have.",
        broker_checks.version,
    ),
    Check(
        "role", "wrong", "whether the broker is a primary and no cluster",
        "The broker is not one that can be written to",
        "Point POSTBACKS_BROKER_URL at the primary, on every machine, and start workers and beat again.",
        broker_checks.role,
    ),
    Check(
        "writes", "wrong", "whether the broker would take a postback now, by a write that changes nothing",
        "No postback is accepted, every `.delay()` raises", "Full: CONFIG SET maxmemory, and see `memory`. Disk: make room there (df -h), its log has the reason. Replica: see "
        "`role`. docs/reliability.md has an entry for each.",
        broker_checks.refusal,
    ),
    Check(
        "eviction", "wrong", "`maxmemory-policy`: `noeviction`",
        "The broker throws keys away when it is full, and postbacks with them",
        "CONFIG SET maxmemory-policy noeviction, and write it into the broker's configuration.",
        broker_checks.eviction,
    ),
    Check(
        "append-only", "wrong", "`appendonly` and `appendfsync`: that what was accepted is written at all",
        "What the broker holds may be lost when it dies",
        "CONFIG SET appendonly yes, CONFIG SET appendfsync always, and write both into its configuration.",
        broker_checks.append_only,
    ),
    Check(
        "fsync", "note", "`appendfsync`: `always`",
        "A broker that dies may lose the last second of what it accepted",
        "Accepted means kept only with appendfsync always (CONFIG SET appendfsync always).",
        broker_checks.fsync,
    ),
    Check(
        "records", "note", "`hash-max-listpack-value`: 4096 or more; `hash-max-listpack-entries`: 32 to 128",
        "Records take more memory, or work on them more CPU, than they need",
        "CONFIG SET hash-max-listpack-value 4096, CONFIG SET hash-max-listpack-entries 64, and write both into its "
        "configuration. Records that are there already shrink when the broker is started again.",
        broker_checks.records,
    ),
    Check(
        "disk", "wrong", "whether the last write, rewrite and snapshot went to the disk",
        "The broker cannot write to its disk; it soon refuses, or refuses already, every postback",
        "Make room on the broker's disk (df -h) and see its log for the reason.",
        broker_checks.disk,
    ),
    Check(
        "disk-space", "wrong", "free space on the disk of an embedded broker (`postbacks up`): 512 MiB",
        "The disk of the broker's data is nearly full; when it is, the broker ends, and again after each start",
        "Make room on that disk (df -h); delete nothing in appendonlydir. Nothing that was accepted is lost.",
        broker_checks.disk_space,
    ),
    Check(
        "memory", "wrong", "memory used: under 85% of `maxmemory`, or of the machine's where it is not set",
        "The broker is nearly full; when it is, nobody's postbacks are accepted",
        "Give it more memory (CONFIG SET maxmemory), or lower POSTBACKS_LEDGER_MEMORY_SHARE or "
        "POSTBACKS_RETENTION_DELIVERED_S; see below whether postbacks pile up.",
        broker_checks.memory,
    ),
    Check(
        "replicas", "wrong",
        "replicas: online, heard of within 10 s, less than 16 MiB behind, as many as `POSTBACKS_WAIT_REPLICAS`",
        "A replica is not in step; after a failover now, postbacks would be missing or sent twice",
        "See the replica's log and the network to it.",
        _replicas,
    ),
    Check(
        "sentinels", "wrong",
        "with a `sentinel://` URL: that each sentinel answers, knows the primary and could have another elected",
        "A sentinel of POSTBACKS_BROKER_URL is of no help; when the primary dies now, nothing may follow it",
        "Start the sentinels that do not answer, or correct their addresses and the primary's name in "
        "POSTBACKS_BROKER_URL; a majority of them must run.",
        _sentinels,
    ),
    Check(
        "clock", "wrong", "this machine's clock against the broker's: within 5 s",
        "Two clocks differ",
        "Set the one that is wrong (timedatectl). Workers and beat go by the broker's; what goes by this machine's "
        "are `countdown=` and `eta=` of programs on it, the dates of certificates, and log lines.",
        broker_checks.clock,
    ),
    Check(
        "clock-jump", "wrong", "times in the ledger that lie in the future",
        "The broker's clock was put back",
        "Nothing is lost: resends and countdowns come later by as much. Set its clock right; if it is right now, "
        "`postbacks doctor --fix` ends the leases that would last too long.",
        broker_checks.clock_jump,
    ),
    # -- beat and workers ------------------------------------------------------------------
    Check(
        "no-worker", "wrong", "where ticks are late: whether a worker gives signs of life",
        "Nothing is taken in, delivered or resent",
        "Start workers: `celery -A postbacks worker`. If they ran, the end of their logs says why they do not.",
        partial(process_checks.gone, kind="worker"),
    ),
    Check(
        "no-beat", "wrong", "where ticks are late: whether a beat gives signs of life",
        "Nobody sends ticks, so nothing is taken in or resent",
        "Start one: `celery -A postbacks beat` (a second one does no harm). If it ran, see the end of its log.",
        partial(process_checks.gone, kind="beat"),
    ),
    Check(
        "beat", "wrong", "when a tick last finished: within a minute",
        "Nothing is taken in, resent or taken over",
        "Start or restart what is missing: `celery -A postbacks worker` and `celery -A postbacks beat`. "
        "If both run, their logs say why a tick fails; --ping tells which workers answer.",
        process_checks.beat,
    ),
    Check(
        "ticks-late", "wrong", "when a tick last finished: within 5 s",
        "Ticks come late, and postbacks with them",
        "See whether beat and workers still run; if they do, whether their machines or the broker's are out of CPU, "
        "and start another worker.",
        process_checks.ticks_late,
    ),
    Check(
        "workers", "wrong", "lanes that are ready while no delivering loop runs; with --ping, whether workers answer",
        "Nobody delivers",
        "Start workers (`celery -A postbacks worker`); where they run, their logs say why `deliver` fails.",
        process_checks.workers,
    ),
    Check(
        "work-queue", "wrong", "messages in the queue `postbacks.work`: at most 100",
        "Wake-ups pile up, sent faster than workers take them",
        "Start more workers; when they are hung rather than too few, restart them. The wake-ups carry nothing.",
        process_checks.work_queue,
    ),
    Check(
        "intake", "wrong", "messages that a tick has taken, and no tick holds",
        "A tick died with messages in its hands",
        "The next tick accepts them; if they stay, none runs (see beat) or every one fails at them (see the log).",
        process_checks.intake,
    ),
    Check(
        "leases-overdue", "wrong", "leases of delivering loops that ended over 10 s ago",
        "A loop has died and nobody takes its postbacks over",
        "Ticks do it: see beat. If ticks finish, their logs say why this fails.",
        process_checks.leases_overdue,
    ),
    Check(
        "leases-ahead", "wrong", "leases that end later than a lease can",
        "The clock was put back; if their owner dies, nobody takes over before these end",
        "`postbacks doctor --fix` makes each end within one lease from now; who lives renews it.",
        process_checks.leases_ahead,
        "shortens each to one lease from now",
    ),
    Check(
        "parked-overdue", "wrong", "parked postbacks whose countdown ended over 10 s ago",
        "Resends are due and nobody releases them",
        "Ticks do it: see beat. After an outage this is normal for as long as it shrinks.",
        process_checks.parked_overdue,
    ),
    Check(
        "silent", "note", "where ticks come: whether a worker and a beat give signs of life",
        "Ticks come, so both run; signs of life are missing, and no metric or alert would tell that they are gone",
        "Version 0.1.0 gives none: upgrade it. Of others the log says why (`presence.not_told`), most likely a right on "
        "the broker; a scheduler of your own (`beat -S`) gives none either.",
        process_checks.silent,
    ),
    Check(
        "versions", "note", "which versions of postbacks deliver, or ticked within the last minute: one",
        "Workers of several versions run side by side",
        "Normal while an upgrade rolls; it is made for that. If it stays, a worker was forgotten: restart it with "
        "the new version.",
        process_checks.versions,
    ),
    # -- lanes and claims ------------------------------------------------------------------
    Check(
        audit.ORPHANED_CLAIMS, "wrong", "claims whose delivering loop is not among the claimers",
        "Postbacks are claimed by a loop that no lease stands for, so nobody would take them over",
        "`postbacks doctor --fix` returns what was held to its lane, and what was in flight to the quarantine.",
        _faults(audit.ORPHANED_CLAIMS),
        "returns them as after a lease that ran out: what was held to its lane, what was in flight to the quarantine",
    ),
    Check(
        audit.PACE, "wrong", "each lane's count of claimed postbacks against its claims",
        "Lanes' counts of what is claimed are off; they get too few transfers, or none",
        "`postbacks doctor --fix` counts again.",
        _faults(audit.PACE),
        "counts again",
    ),
    Check(
        audit.ENDPOINTS, "wrong", "each endpoint's count of open POSTs against its claims, where they are limited",
        "Endpoints count POSTs as open that are not; they get too few",
        "`postbacks doctor --fix` counts again.",
        _faults(audit.ENDPOINTS),
        "counts again",
    ),
    Check(
        "unreached", "note", "endpoints that failed to connect, and have taken no connection since",
        "Endpoints take no connection; each is tried with one postback, and all that goes there waits for it",
        "It is for their owners: `postbacks ping ACCOUNT` says what a connection meets. Where it is all of them, "
        "look at the workers' own network, proxy and name servers.",
        process_checks.unreached,
    ),
    Check(
        "down", "note", "accounts with a lane of which every attempt has failed for an hour",
        "Receivers have taken nothing for an hour; what is sent to them is given up after its last resend",
        "`postbacks ping ACCOUNT` says what is wrong there; docs/reliability.md#an-account-is-down-for-an-hour.",
        account_checks.down,
    ),
    Check(
        "standing-still", "note", "accounts whose postbacks wait though nothing can be sent for them",
        "Accounts stand still: what waits for them is kept, and nothing is sent",
        "gone: set it again, or let what waits end as dead after POSTBACKS_ACCOUNT_REMOVED_KEEP_S. unreadable: set it "
        "anew, or run the newer version that wrote it. unusable: the workers' POSTBACKS_SECRET_KEY does not open its "
        "secrets, or all have expired.",
        account_checks.standing_still,
    ),
    Check(
        "unrouted", "note", "the latest events of accounts that nobody knows, or that have no URL for them",
        "Events come that have nowhere to go; they are dead, and kept for a day",
        "Set the account (`--off ALL` if it wants nothing), or correct the name in the program that sends; then "
        "`postbacks resend --all-dead --account NAME`.",
        account_checks.unrouted,
    ),
    Check(
        "many-dead", "note", "accounts whose dead postbacks have nearly filled their share of the memory",
        "Accounts have so many dead postbacks that the oldest will be gone for good before their retention ends",
        "Mend the receiver (`postbacks ping ACCOUNT`), then `postbacks resend --all-dead --account NAME`. Or give the "
        "broker more memory (POSTBACKS_ACCOUNT_DEAD_SHARE).",
        account_checks.many_dead,
    ),
    Check(
        audit.LANES_STUCK, "wrong",
        "lanes that may be claimed from, are in no ring and do not wait for a rate or for room",
        "Lanes hold postbacks, and no worker will ever come to them",
        "`postbacks doctor --fix` puts them back in turn.",
        _faults(audit.LANES_STUCK),
        "puts them back in turn",
    ),
    Check(
        audit.LANES_EMPTY, "note", "lanes in a ring with nothing waiting",
        "Lanes that hold nothing are in turn; harmless, but every tick wakes workers for them",
        "The next claim drops them; if they stay, nobody claims (see workers).",
        _faults(audit.LANES_EMPTY),
        "takes them out of the ring",
    ),
    Check(
        audit.LANES_TWICE, "wrong", "lanes in both rings",
        "Lanes have two turns where others have one",
        "`postbacks doctor --fix` leaves them the one that their pace names.",
        _faults(audit.LANES_TWICE),
        "leaves them in the ring that their pace names",
    ),
    Check(
        audit.BACKLOG, "wrong", "each account's count of open postbacks against its lanes, claims and parked ones",
        "Accounts' counts of open postbacks are off; they may be refused too early or too late",
        "`postbacks doctor --fix` counts again.",
        _faults(audit.BACKLOG),
        "counts again",
    ),
    Check(
        "oldest-waiting", "note", "the postback of each group that waits the longest: for a minute at most",
        "Postbacks wait long",
        "A lane that fails or is slow holds up only itself (`postbacks list --dead`, `postbacks ping ACCOUNT`); "
        "when many wait, start more workers.",
        _oldest,
    ),
    Check(
        "quarantine", "note", "postbacks that were in flight when their process died",
        "Postbacks are tried with care, in a process of their own, as one of them may have killed theirs",
        "They leave within minutes. If they stay, no worker runs examiners (see workers), or each one dies: see "
        "quarantine.examiner_died in the workers' logs, and docs/reliability.md#poison.",
        _quarantine,
    ),
    Check(
        "quarantine-old", "wrong", "postbacks in quarantine: their last POST began within ten minutes",
        "Postbacks stay in quarantine, and nobody tries them",
        "No worker runs examiners (see workers), or they cannot start: see quarantine.not_examined and "
        "quarantine.examiner_died in the workers' logs. An account's rate or limit may hold them up as well.",
        _quarantine_old,
    ),
    # -- the ledger ------------------------------------------------------------------------
    Check(
        audit.NO_PLACE, "wrong", "records whose postback stands in no lane, claim, quarantine, parked set or index",
        "Postbacks that the ledger knows stand nowhere, and would never be sent or never dropped",
        "`postbacks doctor --fix` puts them where their records say. Report this: no move leaves it behind.",
        _faults(audit.NO_PLACE), _REDO,
    ),
    Check(
        audit.TWO_PLACES, "wrong", "postbacks that stand in more than one place",
        "Postbacks stand in two places, and would be sent twice",
        "`postbacks doctor --fix` keeps the place that their records name. Report this: no move leaves it behind.",
        _faults(audit.TWO_PLACES), _REDO,
    ),
    Check(
        audit.WRONG_PLACE, "wrong", "postbacks that stand elsewhere than their record says",
        "Postbacks stand where their record does not expect them, and would be dropped there unsent",
        "`postbacks doctor --fix` puts them where their records say. Report this: no move leaves it behind.",
        _faults(audit.WRONG_PLACE), _REDO,
    ),
    Check(
        audit.NO_RECORD, "wrong", "ids in places that the ledger has no record of",
        "Ids have no record, so there is nothing left to send",
        "Restore the broker from a backup if records were deleted by mistake; else `postbacks doctor --fix` "
        "drops the ids.",
        _faults(audit.NO_RECORD),
        "drops the ids",
    ),
    Check(
        audit.UNKNOWN_STATE, "wrong", "records in a state that this version does not know",
        "Records in a state that nobody here knows",
        "Look at them (`postbacks show ID --json`); when a newer version wrote them, use its doctor.",
        _faults(audit.UNKNOWN_STATE),
    ),
    Check(
        "schemas", "note", "the schema version of every record",
        "Records of several versions of postbacks",
        "Normal during an upgrade and until old records are past their retention; else an old worker still runs.",
        _schemas,
    ),
    Check(
        "dead", "note", "why postbacks are dead",
        "Postbacks were given up",
        "`postbacks list --dead` shows them, `postbacks resend ID` sends one again.",
        _dead,
    ),
    # -- the history -----------------------------------------------------------------------
    Check(
        "history-off", "note", "with `POSTBACKS_HISTORY_URL`: whether the feed of the history is on",
        "A history is set and nothing is recorded",
        "Start a recorder, which turns it on: `postbacks history run`.",
        history_checks.is_off,
    ),
    Check(
        "history-recorder", "wrong", "where that feed is on: whether a recorder gives signs of life",
        "Nothing is recorded, and the feed keeps what changes only while it has room",
        "Start a recorder (`postbacks history run`), or end the feed (`postbacks history off`). Delivery needs neither.",
        history_checks.no_recorder,
    ),
    Check(
        "history-behind", "wrong", "whether the recorder can go on, and is at most a minute behind",
        "The recorder does not keep up",
        "Mend what it waits for; it goes on by itself. Where it waits for nothing, its disk or its core is too slow.",
        history_checks.behind,
    ),
    Check(
        "history-feed", "wrong", "what is not recorded: under half of `POSTBACKS_HISTORY_FEED_SHARE`",
        "The feed fills up; when it is full, changes are dropped that the history does not have",
        "See `history-recorder` and `history-behind`; docs/reliability.md#the-historys-feed-fills-up.",
        history_checks.nearly_full,
    ),
    Check(
        "history-gap", "wrong", "whether a resync has closed the gap after changes were dropped unread",
        "The history has a gap",
        "A recorder closes it by itself, from the records that are still there; `postbacks history status` says how far "
        "it is.",
        history_checks.gap,
    ),
    Check(
        "history-older", "note", "where that feed is on: versions at work that write none",
        "Workers tell the history nothing of what they do",
        "Replace them; a resync then records what the broker still has.",
        history_checks.older,
    ),
    Check(
        "history-database", "wrong", "with `POSTBACKS_HISTORY_URL`: whether its database can be read, and has our schema",
        "Whoever searches from here finds nothing",
        "Do what the sentence says. Nothing of delivery needs that database.",
        history_checks.database,
    ),
    # -- Celery ----------------------------------------------------------------------------
    Check(
        "foreign-messages", "wrong", "the first 200 messages of `postbacks`, `postbacks.work` and `celery`",
        "Messages lie in a queue where they do not belong",
        "Another application shares our queue, or ours is sent to the wrong one: call postbacks.send_postback with "
        "queue postbacks, and give the other application a database or queue of its own.",
        process_checks.foreign_messages,
    ),
    Check(
        "unacked", "wrong", "messages of ours that a worker took and does not acknowledge",
        "A worker keeps messages to itself; it hangs, or died",
        "Restart it. The wake-ups carry nothing, so nothing is lost.",
        process_checks.unacked,
    ),
    Check(
        "incomplete", "note", "whether the time sufficed to look at every record, and at every account for what waits",
        "Not everything was looked at in time",
        "Give it more: `postbacks doctor --within 300`.",
        _incomplete,
    ),
)  # fmt: skip
