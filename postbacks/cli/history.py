"""``postbacks history``: the recorder, and what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from postbacks.cli.base import Command, Group, confirm, json_option, print_json, say, stop_signals, why_option
from postbacks.printable import printable

if TYPE_CHECKING:
    from postbacks.history.feed import Feed
    from postbacks.history.recorder import Recorder
    from postbacks.history.status import Status
    from postbacks.settings import Settings

#: Seconds that a recorder has to end: a database that does not answer is not waited for.
_STOP_WITHIN_S: Final = 5.0
_UNITS: Final = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@click.group(
    cls=Group,
    examples=(
        "POSTBACKS_HISTORY_URL=sqlite:///history.db postbacks history run",
        "postbacks history status",
    ),
)
def history() -> None:
    """Keep postbacks of the last weeks in a database, for whoever searches.

    A recorder copies what happens into POSTBACKS_HISTORY_URL (SQLite or PostgreSQL). Deliveries neither read it nor
    wait for it.
    """


@history.command(cls=Command, examples=("postbacks history run",))
def run() -> None:
    """Record until Ctrl-C.

    Makes the tables where there are none, and brings those of an older version forward. Any number may run: one works,
    the others wait for its end. Where broker or database do not answer it waits for them, says why, and goes on.
    """
    from postbacks.broker.client import client
    from postbacks.logs import write_to_stderr

    stop_signals()
    settings = _settings()
    _check_drivers()
    from postbacks.history.recorder import Recorder
    from postbacks.operate.duties import Duties, duties_of

    recorder = Recorder(client(), settings)
    write_to_stderr(settings.log)
    with Duties(recorder, duties_of(recorder, client(), settings)):
        _run_until_interrupted(recorder)


@history.command(cls=Command, examples=("postbacks history status", "postbacks history status --json"))
@json_option
def status(as_json: bool) -> None:
    """Say how far back history goes, how far behind it is, how much disk it takes, and what is wrong.

    Exit codes: 0 all is well; 1 something is wrong.
    """
    from postbacks.broker.client import client
    from postbacks.history.status import read
    from postbacks.settings import load

    settings = load()
    now = read(client(), settings)
    if as_json:
        print_json(now.to_public_dict())
    else:
        for name, words in _lines(now):
            click.echo(f"{name:11}{printable(words)}")
    if not now.ok:
        raise click.exceptions.Exit(1)


@history.command(cls=Command, examples=("postbacks history resync",))
@why_option
def resync(why: str) -> None:
    """Have the recorder read all records of the broker again.

    It does so by itself after a gap, or when it begins. It goes on with what changes meanwhile.
    """
    from postbacks.history.feed import ASKED
    from postbacks.operate import journal

    feed = _feed()
    state = feed.state()
    if state.on_ms is None:
        raise click.ClickException(
            "The feed is off: `postbacks history run` turns it on, and begins with a resync."
        )
    feed.want_resync(ASKED)
    journal.write("history.resync", why=why)
    if _has_recorder(feed):
        say("The recorder begins within a second or two; `postbacks history status` says how far it is.")
    else:
        say(
            "It is asked for, and no recorder works now: start one (`postbacks history run`), which begins with it."
        )


@history.command(cls=Command, examples=("postbacks history prune", "postbacks history prune --yes"))
@click.option("--yes", is_flag=True, help="Do not ask.")
@why_option
@json_option
def prune(yes: bool, why: str, as_json: bool) -> None:
    """Delete now what is older than the settings keep.

    A recorder does so by itself, some rows after each batch. This is for a database that none writes to now: after
    shorter POSTBACKS_HISTORY_…_DAYS, or before a copy. The file does not shrink; new rows take the room.
    """
    from postbacks.broker.client import client
    from postbacks.logs import EventLog, write_to_stderr

    settings = _settings()
    _check_drivers()
    from postbacks.history.prune_now import Pruning
    from postbacks.operate import journal

    pruning = Pruning(client(), settings)
    due = pruning.due()
    if not any(due):
        if as_json:
            print_json({"postbacks": 0, "attempts": 0, "documents": 0})
        say("Nothing is older than the settings keep.")
        return
    words = f"{due.postbacks:,} postbacks, the attempts of {due.attempts:,} and the documents of {due.documents:,}"
    if not yes:
        say(f"Older than the settings keep: {words}.")
        confirm("Delete them from the history? They cannot be brought back.")
    write_to_stderr(settings.log)
    log = EventLog(__name__)
    for _ in pruning.run():
        pass
    log.warning("history.pruned", "history was pruned by hand", **due._asdict())
    journal.write("history.prune", why=why, details=due._asdict())
    if as_json:
        print_json(due._asdict())
    say(f"Deleted: {words}.")


@history.command(cls=Command, examples=("postbacks history off",))
@click.option("--yes", is_flag=True, help="Do not ask.")
@why_option
def off(yes: bool, why: str) -> None:
    """End the feed: nothing is recorded any more, and the broker keeps no changes.

    The database stays, and can be searched. A recorder that runs stands still; one that is started anew turns the
    feed on again, with a resync.
    """
    from postbacks.logs import EventLog, write_to_stderr
    from postbacks.operate import journal
    from postbacks.settings import load

    feed = _feed()
    state = feed.state()
    if state.on_ms is None:
        say("The feed is off already.")
        return
    say(
        f"The feed ends, with {state.length:,} changes that are not recorded. The database stays as it is; what happens from "
        "now on is not in it, but for what a resync finds in the broker when a recorder runs again."
    )
    if _has_recorder(feed):
        say(f"The recorder {state.holder} stands still then, until one is started anew.")
    if not yes:
        confirm("End the feed?")
    if feed.turn_off("asked"):
        write_to_stderr(load().log)
        log = EventLog(__name__)
        log.warning("history.feed_off", "the feed was ended by hand", changes=state.length)
        journal.write("history.off", why=why, details={"changes": state.length})
    say("The feed is off.")


def _settings() -> Settings:
    """Load the settings; a history must be set."""
    from postbacks.errors import HistoryOff
    from postbacks.settings import load

    settings = load()
    if not settings.history_url:
        raise HistoryOff(
            "No history is set: set POSTBACKS_HISTORY_URL, such as sqlite:////var/lib/postbacks/history.db or "
            "postgresql://user:password@host/postbacks; `postbacks up` brings one."
        )
    return settings


def _check_drivers() -> None:
    from importlib.util import find_spec

    from postbacks.errors import HistoryUnfit
    from postbacks.history.status import MISSING

    if find_spec("sqlalchemy") is None:
        raise HistoryUnfit(MISSING)


def _feed() -> Feed:
    from postbacks.broker.client import client
    from postbacks.history.feed import Feed

    return Feed(client())


def _has_recorder(feed: Feed) -> bool:
    state = feed.state()
    return bool(state.holder) and (state.lease_ends_ms or 0) > state.now_ms


def _run_until_interrupted(recorder: Recorder) -> None:
    """Run a recorder in a thread, so that Ctrl-C ends it between two transactions and not within one."""
    import threading

    stop, ended = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            recorder.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
        ended.set()

    threading.Thread(target=run, name="postbacks-recorder", daemon=True).start()
    try:
        ended.wait()  # Thread.join takes a thread for ended once a signal has interrupted it
    except KeyboardInterrupt:
        stop.set()
        ended.wait(_STOP_WITHIN_S)
    if errors:
        raise errors[0]


# -- status ----------------------------------------------------------------------------------------


def _lines(now: Status) -> list[tuple[str, str]]:
    """Return the lines of ``status``: a label and its words."""
    from postbacks.history.status import OFF
    from postbacks.ledger.record import iso

    feed, store = now.feed, now.store
    lines = [("history", _state_words(now))]
    if feed.state != OFF and not feed.fault:
        lines.append(("behind", _lag_words(now)))
    if feed.resync:
        lines.append(("resync", _resync_words(now)))
    if store.url:
        lines.append(("database", store.url))
    elif feed.state != OFF:
        lines.append(("database", "not set here (POSTBACKS_HISTORY_URL), so that nothing can be searched"))
    if store.rows is not None:
        lines.append(("holds", f"{store.rows:,} postbacks, {_size(store.disk_bytes or 0)} on disk"))
    if store.postbacks_from_ms is not None:
        rest = f"attempts to {iso(store.attempts_from_ms)}, documents to {iso(store.documents_from_ms)}"
        lines.append(("goes back", f"to {iso(store.postbacks_from_ms)}; {rest}"))
    if feed.gaps:
        times = "once" if feed.gaps == 1 else f"{feed.gaps:,} times"
        closed = "not closed yet" if feed.resync else f"closed by the resync of {iso(feed.resynced_ms)}"
        lines.append(
            ("gaps", f"{times}, {feed.gap_entries:,} changes, the last at {iso(feed.gap_ms)}; {closed}")
        )
    lines += [("wrong", fault) for fault in now.faults]
    return lines


def _state_words(now: Status) -> str:
    from postbacks.history.status import OFF, UNKNOWN
    from postbacks.ledger.record import iso

    feed = now.feed
    if feed.state == UNKNOWN:
        return "unknown, as the broker cannot be asked"
    if feed.state == OFF:
        since = f" since {iso(feed.since_ms)} ({feed.off_reason})" if feed.since_ms else ""
        how = (
            ""
            if now.store.url
            else "; set POSTBACKS_HISTORY_URL and run `postbacks history run` to switch it on"
        )
        return f"off{since}{how}"
    recorder = f", recorder {feed.holder}" if feed.holder else ""
    return f"{feed.state}{recorder}; the feed is on since {iso(feed.since_ms)}"


def _lag_words(now: Status) -> str:
    feed = now.feed
    if not feed.entries:
        return "by nothing: all that has changed is recorded"
    return (
        f"by {feed.lag_s or 0:.1f} s: {feed.entries:,} changes, {_size(feed.bytes)} of the broker's memory "
        f"({feed.share:.1%})"
    )


def _resync_words(now: Status) -> str:
    from postbacks.history.feed import REASONS

    feed = now.feed
    why = REASONS.get(feed.resync, feed.resync)
    if feed.resync_records is None:
        return f"wanted, as {why}"
    return f"under way, {feed.resync_records:,} records read so far, as {why}"


def _size(number: int) -> str:
    for unit, name in _UNITS:
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} bytes"
