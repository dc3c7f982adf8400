"""The journal: an entry comes to the database once, or to the log, and nothing changes it."""

from __future__ import annotations

import getpass
import json
import logging

import pytest
import redis
from click.testing import CliRunner
from events import MT
from helpers import environment, set_account
from recording import both, make_recorder, no_waiting, settle
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from postbacks import keys, send_postbacks
from postbacks.accounts import store
from postbacks.accounts.secrets import new_key
from postbacks.cli import main
from postbacks.history import journal as rows
from postbacks.history.engine import reader
from postbacks.history.feed import Feed
from postbacks.history.recorder import Recorder
from postbacks.history.transactions import reading
from postbacks.ledger import journal as waiting_journal
from postbacks.ledger.journal import Entry
from postbacks.operate import identity, journal
from postbacks.operate.journal_words import details_words
from postbacks.queue.scripts import Scripts
from postbacks.queue.tick import Tick
from postbacks.settings import load


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Let each turn do all that is done once a second; forget what earlier tests could only log."""
    no_waiting(monkeypatch)
    journal.only_logged.set(False)


@pytest.fixture
def recorder(rig, history_url):
    """Recorder of an empty database, which the settings name, with the feed on."""
    with environment(POSTBACKS_HISTORY_URL=history_url):
        recorder = make_recorder(rig.client, history_url)
        settle(recorder, rig.client)
        yield recorder
        recorder.close()
        reader(load()).dispose()


def told(entries: list[Entry]) -> list[tuple[str, str, str, str]]:
    return [(entry.by, entry.action, entry.subject, entry.why) for entry in entries]


# -- to the database -------------------------------------------------------------------------------


@both
def test_an_entry_is_found_at_once_and_stands_in_the_database_afterwards(rig, recorder):
    """Newest first, before and after it is copied; then nothing of it waits in the broker."""
    assert journal.write("account.set", "acme", details={"rate": [None, "50/s"]}, by="ann")
    assert journal.write("resend", "order-1", why="ticket 812", details={"account": "acme"}, by="bob")
    expected = [("bob", "resend", "order-1", "ticket 812"), ("ann", "account.set", "acme", "")]
    before = journal.entries()
    assert told(before) == expected
    settle(recorder, rig.client)
    assert rig.client.xlen(keys.JOURNAL) == 0
    assert journal.entries() == before
    assert before[1].details == {"rate": [None, "50/s"]}
    now_ms = Feed(rig.client).state().now_ms
    assert all(now_ms - 60_000 < entry.at_ms <= now_ms for entry in before)
    assert not journal.only_logged.get()


def test_a_person_in_a_reason_is_masked_before_it_is_written(rig, recorder):
    """The broker gets the mask already; the number of a ticket stays."""
    journal.write("account.set", "acme", why="+1 (555) 987-6501 has called, ticket 4711234", by="ann")
    ((_, waiting),) = waiting_journal.waiting(rig.client, 9)
    assert waiting.why.startswith("1555…01 ·")
    assert waiting.why.endswith(" has called, ticket 4711234")
    settle(recorder, rig.client)
    assert [entry.why for entry in journal.entries()] == [waiting.why]
    journal.write("account.set", "acme", why="x " * 495 + "x15559876501", by="ann")
    assert "15559" not in journal.entries()[0].why  # nor where the end of a long reason is left off


def test_details_are_put_into_words():
    """Leave out what is not so; tell filters by their names."""
    details = {"request": "r1", "now": False, "filters": {"account": "acme", "opt_outs": True}, "ids": None}
    assert details_words(details) == "request r1, filters (account acme, opt_outs)"


@both
def test_entries_are_filtered_in_the_broker_as_in_the_database(rig, recorder):
    """By account, also where that stands in the details; by user, by action and its family, by time, and a limit."""
    journal.write("account.set", "acme", by="ann")
    journal.write("secret.rotate", "acme", by="bob")
    journal.write("resend", "order-1", details={"account": "acme"}, by="bob")
    journal.write("account.remove", "beta", by="ann")
    ages = [entry.at_ms for entry in journal.entries()]
    asked = [
        {"account": "acme"},
        {"by": "bob"},
        {"action": "account"},
        {"action": "account.set"},
        {"action": "account.s"},
        {"limit": 2},
        {"since_ms": max(ages) + 1},
        {"until_ms": min(ages)},
        {"account": "acme", "by": "ann"},
    ]
    counts = [3, 2, 2, 1, 0, 2, 0, 0, 1]
    before = [journal.entries(**filters) for filters in asked]
    assert [len(found) for found in before] == counts
    settle(recorder, rig.client)
    assert rig.client.xlen(keys.JOURNAL) == 0
    assert [journal.entries(**filters) for filters in asked] == before


def test_a_recorder_that_dies_before_it_drops_an_entry_writes_it_once(rig, recorder, monkeypatch):
    """An entry that is read a second time stands there already."""
    journal.write("account.set", "acme")
    with monkeypatch.context() as patch:
        patch.setattr(waiting_journal, "drop", lambda *_: None)
        settle(recorder, rig.client)
    assert rig.client.xlen(keys.JOURNAL) == 1
    settle(recorder, rig.client)
    with reading(recorder.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM journal")).scalar_one() == 1
    assert rig.client.xlen(keys.JOURNAL) == 0


def test_a_gap_in_the_feed_loses_no_entry(rig, recorder):
    """The feed's oldest entries go where it is too long; the journal stands beside it."""
    journal.write("account.set", "acme")
    rig.client.xadd(keys.CHANGES, {"ids": "gone"})
    assert rig.scripts.limit_changes(1, 10**12, "never")[0] == 1
    assert Feed(rig.client).state().resync == "gap"
    settle(recorder, rig.client)
    assert [entry.action for entry in journal.entries()] == ["account.set"]


def test_what_waits_when_the_feed_ends_is_recorded_by_the_next_recorder(rig, recorder):
    """As long as no tick has logged it."""
    journal.write("history.off")
    Feed(rig.client).turn_off("asked")
    recorder.close()
    after = make_recorder(rig.client, load().history_url)
    settle(after, rig.client)
    assert [entry.action for entry in journal.entries()] == ["history.off"]
    after.close()


def test_an_entry_that_cannot_be_read_keeps_none_behind_it_back(rig, recorder):
    """Somebody wrote it, and it becomes an entry that says so; fields of a newer version are left out."""
    for written in ("no JSON", "[]", '{"id": "1", "by": 7, "action": "x"}', '{"id": "1"}'):
        rig.client.xadd(keys.JOURNAL, {"at_ms": 5, "entry": written})
    rig.client.xadd(keys.JOURNAL, {"at_ms": 5, "entry": '{"id": "2", "by": "ann", "action": "x", "new": 1}'})
    rig.client.xadd(keys.JOURNAL, {"other": 1})
    settle(recorder, rig.client)
    entries = journal.entries()
    assert sorted(entry.action for entry in entries) == ["unreadable"] * 5 + ["x"]
    assert {"entry": "no JSON"} in [entry.details for entry in entries]


def test_no_entry_is_changed_and_old_ones_are_pruned(rig, recorder, database_refuses):
    """The database refuses a change; after the settings' days entries go, oldest first."""
    journal.write("account.set", "acme")
    settle(recorder, rig.client)
    database_refuses(recorder, "UPDATE journal SET by_user = 'nobody'")
    (entry,) = journal.entries()
    writer = recorder._writer
    day_ms = 86_400_000
    settings = load().model_copy(update={"history_journal_days": 30})
    assert writer.prune_journal(entry.at_ms + 30 * day_ms, settings) == 0
    assert writer.prune_journal(entry.at_ms + 30 * day_ms + 1, settings) == 1
    assert journal.entries() == []


@pytest.fixture
def database_refuses():
    """Check that a recorder's database refuses a statement, and says why."""

    def check(recorder: Recorder, statement: str) -> None:
        with pytest.raises(DBAPIError, match="append-only"), recorder.engine.begin() as connection:
            connection.execute(text(statement))

    return check


# -- to the log alone ------------------------------------------------------------------------------


def test_without_a_recorder_a_tick_writes_an_entry_to_the_log(rig, caplog):
    """Once, with all that it says; whoever wrote it learns that no database gets it."""
    caplog.set_level(logging.INFO)
    assert not journal.write("account.set", "acme", why="a test", details={"rate": [None, "1/s"]}, by="ann")
    assert journal.only_logged.get()
    caplog.clear()
    rig.tick()
    rig.tick()
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "journal.entry"]
    assert record.name == "postbacks.queue.tick"
    assert (record.by, record.action, record.subject, record.why) == ("ann", "account.set", "acme", "a test")
    assert record.details == '{"rate": [null, "1/s"]}'
    assert rig.client.xlen(keys.JOURNAL) == 0


def test_a_tick_without_the_right_to_read_entries_does_all_else(rig):
    """Rights of the version before."""
    journal.write("account.set", "acme")
    rig.client.acl_setuser(
        "former", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"], commands=["-xrange"]
    )
    address = rig.client.connection_pool.connection_kwargs
    with redis.Redis(address["host"], address["port"], username="former", password="secret") as client:
        Tick(Scripts(client), store(), load()).run()
    rig.client.acl_deluser("former")
    assert rig.client.xlen(keys.JOURNAL) == 1


def test_a_tick_leaves_to_the_recorder_what_is_the_recorders(rig, recorder):
    """Also to one that is away: the feed waits for it for a week."""
    recorder.close()
    assert journal.write("account.set", "acme")
    rig.tick()
    assert rig.client.xlen(keys.JOURNAL) == 1


def test_more_than_the_broker_keeps_is_logged_by_whoever_writes_it(rig, caplog, monkeypatch):
    """A flood of entries that nobody takes does not fill the broker."""
    monkeypatch.setattr(waiting_journal, "MAX_WAITING", 2)
    for number in range(3):
        assert not journal.write("resend", f"order-{number}")
    assert rig.client.xlen(keys.JOURNAL) == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (record.event, record.subject) == ("journal.entry", "order-2")


def test_a_broker_that_does_not_answer_fails_nothing(caplog):
    """An action that is done stays done: the log has it."""
    with environment(POSTBACKS_BROKER_URL="redis://127.0.0.1:1/0"):
        assert not journal.write("account.set", "acme")
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.event == "journal.entry"
    assert "does not answer" in record.detail


def test_a_full_broker_takes_entries(rig):
    """An operator acts then, and is to be found in the journal."""
    rig.client.config_set("maxmemory", 1)
    try:
        journal.write("drop", "dead", details={"postbacks": 3})
        assert rig.client.xlen(keys.JOURNAL) == 1
    finally:
        rig.client.config_set("maxmemory", 0)


# -- what an entry says ----------------------------------------------------------------------------


def test_an_entry_is_printable_and_bounded(rig):
    """Nobody forges a line by a name, or fills the broker by a reason."""
    journal.write(
        "resend",
        "a\x1b[2Jb\n" + "x" * 1000,
        why="y" * 5000,
        details={"a\n": {"b": ["\x9b", 1, None, True]}, "url": "z" * 4000, "of": {"q", "p"}}
        | {f"field-{number}": "w" * 300 for number in range(100)},
        by="ann\r\nroot",
    )
    ((_, entry),) = waiting_journal.waiting(rig.client, 10)
    assert entry.by == r"ann\r\nroot"
    assert entry.subject.startswith(r"a\x1b[2Jb\n")
    assert len(entry.subject) == 300
    assert len(entry.why) == 1000
    assert entry.details["a\\n"] == {"b": ["\\x9b", 1, None, True]}
    assert entry.details["url"] == "z" * 300
    assert entry.details["of"] == ["p", "q"]
    assert entry.details["more"] > 90
    journal.write(
        "account.set", "acme", details={"changed": {f"url{n}": ["a" * 300, "b" * 300] for n in range(9)}}
    )
    entry = waiting_journal.waiting(rig.client, 10)[-1][1]
    assert entry.details["changed"]["more"] == 5
    assert details_words(entry.details).endswith(", more 5")
    assert len(str(entry)) < 6000


@pytest.mark.parametrize(
    ("variable", "expected"), [("ann", "ann"), (" ann \n", "ann"), ("a\tb", r"a\tb"), ("x" * 500, "x" * 100)]
)
def test_the_user_is_whom_the_variable_names(variable, expected):
    with environment(POSTBACKS_USER=variable):
        assert identity.current_user() == expected


def test_without_the_variable_the_user_is_the_systems_or_a_number(monkeypatch):
    """A container's user often has no name."""
    monkeypatch.delenv("POSTBACKS_USER", raising=False)
    assert identity.current_user() == getpass.getuser()

    def nameless() -> str:
        raise KeyError("no name")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert identity.current_user().startswith("uid ")


def test_an_entry_is_about_the_account_that_it_names(rig):
    """A postback's or a job's stands in the details."""
    assert rows.account_of(Entry("1", 0, "ann", "account.set", "acme")) == "acme"
    assert rows.account_of(Entry("1", 0, "ann", "resend", "order-1")) == ""
    assert rows.account_of(Entry("1", 0, "ann", "resend", "order-1", details={"account": "acme"})) == "acme"


# -- the command -----------------------------------------------------------------------------------


def call(*args: str):
    return CliRunner().invoke(main, args)


def test_the_command_shows_what_other_commands_have_written(rig, recorder):
    """User, action, reason and each field that has changed; nothing of a password."""
    with environment(POSTBACKS_USER="ann", POSTBACKS_SECRET_KEY=new_key()):
        for args in (
            ("account", "set", "acme", "--url", "https://u:word@acme.example/?k=word", "--why", "ticket 812"),
            ("account", "set", "acme", "--rate", "50/s", "--header", "X-Key: word"),
            ("account", "secret", "rotate", "acme", "--overlap", "1h"),
            ("account", "secret", "reseal", "--why", "a new key"),
            ("account", "secret", "remove", "acme"),
            ("history", "resync", "--why", "to be sure"),
            ("account", "remove", "acme", "--yes", "--why", "they left"),
        ):
            shown = call(*args)
            assert shown.exit_code == 0, shown.output
            assert "journal" not in shown.stderr
    shown = call("journal")
    assert shown.exit_code == 0
    rows = [line.split("   ")[1:] for line in shown.stdout.splitlines()[2:]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["ann", "account.remove", "acme", "url https://acme.example/?k=… -> none, rate 50/s -> none, headers.X-Key set -> none", "they left"],
        ["ann", "history.resync", "to be sure"],
        ["ann", "secret.remove", "acme"],
        ["ann", "secret.reseal", "accounts 1", "a new key"],
        ["ann", "secret.rotate", "acme", "overlap_s 3600"],
        ["ann", "account.set", "acme", "rate none -> 50/s, headers.X-Key none -> set"],
        ["ann", "account.set", "acme", "new, url https://acme.example/?k=…", "ticket 812"],
    ]  # fmt: skip
    assert "word" not in shown.stdout
    (line,) = call("journal", "--action", "history", "--json").stdout.splitlines()
    entry = json.loads(line)
    assert (entry["by"], entry["action"], entry["why"]) == ("ann", "history.resync", "to be sure")
    assert entry["at"].endswith("Z")
    assert call("journal", "--by", "nobody").stderr == "The journal has no such entry.\n"
    assert "These are the newest 2;" in call("journal", "--limit", "2").stderr
    assert call("journal", "--since", "soon").exit_code == 2


def test_resends_drops_and_repairs_are_written(rig, monkeypatch):
    """Each by its own word; without a recorder the command says so, once."""
    (first, _) = send_postbacks("acme", [MT] * 2)  # dead, as the account is not known yet
    rig.tick()
    set_account("acme", url="http://127.0.0.1:9999/")
    shown = call("resend", first)
    assert shown.stderr.count("(journal: written to the workers' log alone, as no recorder works)") == 1
    assert call("drop", "--dead", "--account", "acme", "--yes", "--why", "asked for").exit_code == 0
    monkeypatch.setattr("postbacks.doctor.doctor.PAUSE_S", 0.0)
    rig.client.zadd(keys.DEAD, {"nobody-has-it": 1})
    repaired = call("doctor", "--fix")
    entries = [entry for _, entry in waiting_journal.waiting(rig.client, 10)]
    assert ("resend", first, {"account": "acme", "was": "dead"}) in [
        (entry.action, entry.subject, entry.details) for entry in entries
    ]
    (drop,) = [entry for entry in entries if entry.action == "drop"]
    assert (drop.subject, drop.why, drop.details["postbacks"]) == ("acme", "asked for", 1)
    repairs = [entry for entry in entries if entry.action == "doctor.fix"]
    assert len(repairs) == repaired.stdout.count("FIXED") > 0
    assert all(repair.details["did"] for repair in repairs)


def test_without_a_history_there_is_no_journal_to_show(broker):
    shown = call("journal")
    assert shown.exit_code == 2
    assert "No history is set" in shown.stderr
