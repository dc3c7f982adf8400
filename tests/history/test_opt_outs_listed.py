"""Opt-outs from their acceptance to the list, the proof, and the notice that they are late: a real broker, both databases."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from events import MO, MT
from helpers import Rig, environment, set_account
from recording import make_recorder, no_waiting, settle
from records import ACCEPTED_MS, delivered, make_document, make_record
from sqlalchemy import Engine, text

from postbacks import send_postbacks
from postbacks.catalogue.opt_outs import words_of
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.history import Query, count, erasing, schema, search
from postbacks.history import opt_outs as counted
from postbacks.history.engine import reader
from postbacks.history.follow import fits
from postbacks.history.opt_outs import late
from postbacks.history.query import Postback
from postbacks.history.status import read_feed
from postbacks.history.transactions import writing
from postbacks.history.writer import Writer
from postbacks.ledger import states
from postbacks.ledger.record import Record
from postbacks.operate.direct import select_dead
from postbacks.operate.incidents.conditions import Look
from postbacks.operate.incidents.opt_outs import late_opt_outs
from postbacks.operate.jobs import frozen
from postbacks.operate.jobs.selection import Chosen
from postbacks.settings import load

SUB = {"ORIGIN": "SUB", "CODE": "N302", "MOBILE": "15552310137", "CAMPAIGNID": "7"}
MINUTE_MS = 60_000


def stop(postback_id: str, state: str, age_min: int, *, account: str = "acme", **fields: object):
    """Make the record of an opt-out that was accepted so long before ``ACCEPTED_MS``."""
    accepted_ms = ACCEPTED_MS - age_min * MINUTE_MS
    if state == "delivered":
        return delivered(postback_id, account=account, accepted_ms=accepted_ms, opt_out=1, **fields)
    ended_ms = accepted_ms + 1000 if state in {"dead", "skipped", "cancelled"} else None
    return make_record(
        postback_id,
        state=state,
        account=account,
        accepted_ms=accepted_ms,
        ended_ms=ended_ms,
        opt_out=1,
        **fields,
    )


@pytest.fixture
def some(writer: Writer) -> None:
    """Opt-outs in each state, old and new, of two accounts, and one that is none."""
    writer.write(
        [
            stop("old-parked", "parked", 60),
            stop("old-dead", "dead", 90, reason="status"),
            stop("old-beta", "waiting", 20, account="beta"),
            stop("old-skipped", "skipped", 99, reason="origin_off"),
            stop("old-cancelled", "cancelled", 99, reason="revoked"),
            stop("old-delivered", "delivered", 99),
            stop("new-waiting", "waiting", 14),
            make_record(
                "other", state="dead", accepted_ms=ACCEPTED_MS - 90 * MINUTE_MS, ended_ms=ACCEPTED_MS
            ),
        ],
        recorded_ms=ACCEPTED_MS,
    )


# -- the database ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("some")
def test_late_are_those_that_can_still_be_delivered_and_were_accepted_long_ago(database: Engine):
    """Leave out those that somebody has skipped or cancelled: they asked for it."""
    with database.connect() as connection:
        opt_outs = late(connection, 900)
        assert (opt_outs.postbacks, opt_outs.dead, opt_outs.is_exact) == (3, 1, True)
        assert dict(opt_outs.by_account) == {"acme": 2, "beta": 1}
        assert opt_outs.oldest_ms == ACCEPTED_MS - 90 * MINUTE_MS
        assert late(connection, 3 * 3600) == (0, None, {}, 0)


def test_a_recorder_that_is_behind_makes_nothing_late(database: Engine, writer: Writer):
    """Postbacks that it has read as waiting may be delivered: it has not come to that yet."""
    writer.write([stop("waiting", "waiting", 60)], recorded_ms=ACCEPTED_MS - 59 * MINUTE_MS)
    with database.connect() as connection:
        assert late(connection, 900).postbacks == 0


@pytest.mark.usefixtures("some")
def test_a_count_is_bounded(database: Engine, monkeypatch):
    monkeypatch.setattr(counted, "AT_MOST", 2)
    with database.connect() as connection:
        opt_outs = late(connection, 900)
    assert (opt_outs.postbacks, opt_outs.is_exact) == (2, False)


def test_what_has_no_mark_is_classified_by_its_document(database: Engine):
    """A resync brings records of version 0.1.0, which marks none; the words are those of the recorder's settings."""
    writer = Writer(database, opt_out_words=words_of(("baja",)))
    writer.take_lease()
    text = b"<POSTBACK><ORIGIN>SMS_MO</ORIGIN><CODE>N211</CODE><TEXT>%s</TEXT></POSTBACK>"
    events = {
        "stop": ("SMS_MO", "N211", text % b"Stop!"), "baja": ("SMS_MO", "N211", text % b"BAJA"),
        "words": ("SMS_MO", "N211", text % b"please stop"), "n302": ("SUB", "N302", b"<POSTBACK/>"),
        "n301": ("SUB", "N301", b"<POSTBACK/>"), "receipt": ("SMS_MT", "N202", make_document()),
    }  # fmt: skip
    writer.write(
        [
            make_record(name, origin=origin, code=code, document=document)
            for name, (origin, code, document) in events.items()
        ]
    )
    found = search(Query(opt_outs=True), engine=database)
    assert {postback.id for postback in found.postbacks} == {"stop", "baja", "n302"}
    assert all(postback.to_public_dict()["opt_out"] for postback in found.postbacks)


# -- the condition -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("some")
def test_the_condition_is_one_for_all_accounts_with_number_and_oldest_age(database: Engine, broker):
    with broker.client() as client:
        (condition,) = late_opt_outs(Look(client, database, load(), ACCEPTED_MS))
    assert condition.key == "opt_outs:"
    assert condition.sentence == (
        "3 opt-outs of acme and beta are not delivered 15 min after acceptance, the oldest since 19:00 UTC (1 h 30 min); "
        "1 of them is dead and waits for a resend"
    )
    assert (condition.size, condition.level, condition.accounts) == (3, 1, ("acme", "beta"))
    assert condition.figures["oldest"] == "2026-05-28T19:00:00.000Z"


@pytest.mark.usefixtures("some")
def test_the_late_one_of_a_person_who_was_forgotten_is_none(database: Engine, broker):
    """Nobody can send it again, so an incident of it would never end."""
    with writing(database) as connection:
        dead = schema.STATES[states.DEAD]
        late_one = connection.execute(
            text("SELECT row_id FROM postbacks WHERE opt_out = 1 AND state = :dead"), {"dead": dead}
        )
        erasing.mark(connection, late_one.scalar_one(), ACCEPTED_MS)
    with broker.client() as client:
        (condition,) = late_opt_outs(Look(client, database, load(), ACCEPTED_MS))
    assert (condition.size, condition.level) == (2, 0)


def test_without_late_ones_there_is_no_condition(database: Engine, writer: Writer, broker):
    writer.write([stop("new", "waiting", 3), stop("delivered", "delivered", 60)], recorded_ms=ACCEPTED_MS)
    with broker.client() as client:
        assert list(late_opt_outs(Look(client, database, load(), ACCEPTED_MS))) == []


# -- from the call to the proof ----------------------------------------------------------------------


class World:
    """Rig, receiver and recorder of a test.

    Attributes:
        status: what the receiver answers.
    """

    def __init__(self, rig: Rig, url: str) -> None:
        self.rig = rig
        self.status = 503
        self.receiver = Receiver(lambda _: Answer(self.status))
        self.recorder = make_recorder(rig.client, url)

    def turn(self) -> None:
        """Deliver what waits, and record it."""
        self.rig.tick()
        self.rig.deliver()
        settle(self.recorder, self.rig.client)

    def list(self, *arguments: str):
        """Call ``postbacks list --opt-outs``."""
        done = CliRunner().invoke(main, ["list", "--opt-outs", *arguments], prog_name="postbacks")
        assert done.exit_code == 0, done.output
        return done


@pytest.fixture
def world(rig: Rig, database_url: str, database: Engine, monkeypatch):
    no_waiting(monkeypatch)
    monkeypatch.setenv("TZ", "UTC")
    with environment(POSTBACKS_HISTORY_URL=database_url):
        world = World(rig, database_url)
        with world.receiver as receiver:
            set_account("acme", url=receiver.url())
            yield world
        world.recorder.close()
        reader(load()).dispose()


def test_an_opt_out_is_listed_until_it_is_delivered_and_every_attempt_is_proved(world: World):
    (sub,) = send_postbacks("acme", [SUB])
    world.rig.tick()
    world.rig.advance(1)
    text, *_ = send_postbacks("acme", [MO | {"TEXT": "Stop!"}, MO | {"TEXT": "stop it"}, MT])
    world.turn()
    assert world.list("--undelivered", "-o", "id").stdout.split() == [text, sub]
    assert world.list("--count").stdout == "2\n"
    for line in map(json.loads, world.list("--undelivered", "--json").stdout.splitlines()):
        assert (line["state"], line["opt_out"], line["outcome"]) == ("parked", True, "status")
        assert 0 <= line["age_s"] < 600
    shown = world.list("--undelivered").stdout
    assert "age" in shown.splitlines()[0]
    assert shown.count("parked") == 2

    world.status = 200
    world.rig.advance(301)
    world.turn()
    assert world.list("--undelivered", "-o", "id").stdout == ""
    proof = world.list("--csv")
    rows = list(csv.DictReader(proof.stdout.splitlines()))
    assert [(row["id"], row["attempt"], row["outcome"], row["status"]) for row in rows] == [
        (text, "1", "status", "503"), (text, "2", "delivered", "200"),
        (sub, "1", "status", "503"), (sub, "2", "delivered", "200"),
    ]  # fmt: skip
    assert {row["event"] for row in rows} == {"SUB N302", "SMS_MO N211"}
    for row in rows:
        assert row["accepted"] <= row["sent"] <= row["delivered"]
        assert row["state"] == "delivered"
        assert 300 <= int(row["age_s"]) < 600
        assert row["url"] == world.receiver.url()
    assert "15552310137" not in proof.output
    assert "15552312102" not in proof.output
    assert {row["person"].partition("…")[0] for row in rows} == {"1555"}
    listed = [json.loads(line) for line in world.list("--person", "--json").stdout.splitlines()]
    assert {(row["id"], row["person"]) for row in listed} == {(row["id"], row["person"]) for row in rows}
    assert world.list("--person").stdout.splitlines()[0].split()[-2:] == ["age", "person"]
    assert world.list("--person", "--csv").stdout == world.list("--csv").stdout
    revealed = csv.DictReader(world.list("--csv", "--reveal", "--why", "ticket 4711").stdout.splitlines())
    assert {row["person"] for row in revealed} == {"15552310137", "15552312102"}


def test_the_proof_of_what_was_never_sent_and_of_what_is_not_recorded_yet(world: World):
    """Print one row without an attempt; and attempts as the broker has them, where the recorder has not come to them."""
    send_postbacks("acme", [SUB])
    world.rig.tick()
    settle(world.recorder, world.rig.client)
    (row,) = csv.DictReader(world.list("--csv").stdout.splitlines())
    assert (row["state"], row["attempt"], row["sent"], row["delivered"]) == ("waiting", "", "", "")
    world.rig.deliver()
    (row,) = csv.DictReader(world.list("--csv", "--undelivered").stdout.splitlines())
    assert (row["state"], row["attempt"], row["detail"]) == ("parked", "1", "answered 503; only 200 counts")
    world.status = 200
    world.rig.advance(301)
    world.rig.tick()
    world.rig.deliver()
    assert world.list("--undelivered", "-o", "id").stdout == ""


def test_a_late_opt_out_is_told_by_health_metrics_and_stats(world: World, monkeypatch):
    monkeypatch.setattr("postbacks.history.recorder.COUNT_EVERY_S", 0.0)
    send_postbacks("acme", [SUB])
    with environment(POSTBACKS_HISTORY_URL=load().history_url, POSTBACKS_OPT_OUT_LATE_S="0.001"):
        recorder = make_recorder(world.rig.client, load().history_url)
        world.recorder.close()
        world.recorder = recorder
        world.turn()
        recorder.turn()
        feed = read_feed(world.rig.client)
        assert feed.late_opt_outs == 1
        health = CliRunner().invoke(main, ["health", "--json", "--max-tick-age", "9999"])
        assert json.loads(health.stdout)["late_opt_outs"] == 1
        stats = CliRunner().invoke(main, ["stats"])
        assert "1 opt-out is not delivered in time, the oldest for" in stats.stderr


def test_of_the_dead_opt_outs_are_chosen_first(rig: Rig):
    """Choose them whichever died first: `postbacks resend --all-dead` without a history."""
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        ids = []
        for event in (MT, SUB):
            ids += send_postbacks("acme", [event])
            rig.tick()
            while rig.record(ids[-1]).state != "dead":
                rig.deliver()
                rig.advance(301)
                rig.tick()
    other, opt_out = ids
    assert select_dead(account="acme").ids == (opt_out, other)


def test_what_is_followed_passes_the_same_filters():
    record = Record.from_hash(*stop("one", "dead", 1))
    postback = Postback.of_record(record)
    for query, passes in ((Query(opt_outs=True), True), (Query(opt_outs=True, undelivered=True), True)):
        assert fits(query, postback, record) is passes
    assert not fits(Query(opt_outs=True), replace(postback, is_opt_out=False), record)
    assert not fits(Query(undelivered=True), replace(postback, state="delivered"), record)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--reveal", "--why", "x"),
        ("--opt-outs", "--reveal", "--why", "x"),
        ("--csv", "--reveal", "--why", "x"),
    ],
)
def test_nothing_is_revealed_where_a_list_has_no_numbers(arguments):
    refused = CliRunner().invoke(main, ["list", *arguments], prog_name="postbacks")
    assert refused.exit_code == 2
    assert "of --person and of --opt-outs --csv: add --person, or leave it out." in refused.stderr


def test_without_a_history_opt_outs_are_refused(broker):
    with environment(POSTBACKS_HISTORY_URL="", POSTBACKS_BROKER_URL=broker.url):
        refused = CliRunner().invoke(main, ["list", "--opt-outs", "--undelivered"], prog_name="postbacks")
    assert refused.exit_code == 2
    assert "--opt-outs and --undelivered choose nothing" in refused.stderr


def test_undelivered_and_delivered_exclude_each_other(database: Engine, writer: Writer):
    writer.write([stop("one", "delivered", 1)])
    assert count(Query(opt_outs=True, undelivered=True), engine=database).postbacks == 0
    refused = CliRunner().invoke(main, ["list", "--undelivered", "--state", "delivered"])
    assert refused.exit_code != 0


def test_a_job_moves_the_opt_outs_of_an_account_first_however_it_was_given_them(
    database: Engine, writer: Writer
):
    """Read its frozen set in order: by rows of a filter, and by ids; the two overlap."""
    writer.write([delivered("first", sequence=1), stop("second", "dead", 1, sequence=2)])
    ids = {p.id: p.row_id for p in search(Query(), engine=database).postbacks}
    with database.begin() as connection:
        for job in ("by-rows", "by-ids"):
            frozen.begin(connection, job)
        frozen.add_rows(connection, "by-rows", list(ids.values()))
        chosen = [
            Chosen("acme", 1, 1, "first", "dead"),
            Chosen("acme", 2, 2, "second", "dead", is_opt_out=True),
        ]
        frozen.add_chosen(connection, "by-ids", chosen)
        for job in ("by-rows", "by-ids"):
            slice_ = frozen.read_slice(connection, job, "acme", "", 10)
            assert [one.id for one in slice_] == ["second", "first"]
            rest = frozen.read_slice(connection, job, "acme", slice_[0].cursor, 10)
            assert [one.id for one in rest] == ["first"]
        assert frozen.overlap(connection, "by-rows", "by-ids") == 2
        unmarked = [chosen[1]._replace(is_opt_out=False)]  # a worker of version 0.1.0 accepted it
        frozen.begin(connection, "unmarked")
        frozen.add_chosen(connection, "unmarked", unmarked)
        assert frozen.overlap(connection, "by-rows", "unmarked") == 1
