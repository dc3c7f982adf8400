"""A person is forgotten: whatever named the person is erased wherever it stood, and nothing else is."""

from __future__ import annotations

import base64
import bz2
import json
import shutil
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from events import MO, MT, example
from helpers import claim, environment, eventually, set_account
from recording import end_lease, make_recorder, no_waiting, settle
from sqlalchemy import text

from postbacks import keys, send_postback
from postbacks.accounts import find_accounts, store
from postbacks.catalogue import event_type, parse_event
from postbacks.catalogue.xml import render
from postbacks.cli import main
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.doctor import audit
from postbacks.errors import PostbacksError
from postbacks.history import Query, copies_of, documents, schema, values
from postbacks.history.engine import reader
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import Attempt, iso
from postbacks.operate import pauses
from postbacks.operate.forget import Receipt, forget
from postbacks.operate.forget.duty import ForgetDuty
from postbacks.operate.forget.erasure import Erasure
from postbacks.operate.forget.person import Person
from postbacks.operate.forget.request import Requests
from postbacks.operate.forget.rows import HistoryPart
from postbacks.operate.jobs.mover import Mover
from postbacks.operate.jobs.requests import start_resend
from postbacks.operate.jobs.status import read as read_job
from postbacks.operate.resend import put_back_row, resend
from postbacks.queue.rows import AttemptRow
from postbacks.settings import load

pytest_plugins = ["history.conftest"]

#: Number of the person, as events, people and a receiver write it.
NUMBER = "15557654321"
#: The last as JSON has it of somebody who writes hyphens that do not break a line.
SPELLINGS = ("5557654321", "+1 (555) 765-4321", r"555\u2011765\u20114321")
#: Number of somebody else, whose postbacks stand beside the person's.
OTHER = "15551234567"
HASH = values.hash_of("number", NUMBER)
OTHERS = ("other delivered", "other between", "other own", "other dead")
EMAIL = example(event_type("EMAIL_SUB", "N304")) | {"EMAIL": "ann@example.com"}
PASS = example(event_type("GENERATE_PASS", "N801"))
MINE, HERS = MT | {"TO": NUMBER}, MT | {"TO": OTHER}


def call(*args: str, **more: Any):
    return CliRunner().invoke(main, args, prog_name="postbacks", **more)


class World:
    """Accounts, a recorder that works, and the duty beside it, all in this process."""

    def __init__(self, rig, receiver, recorder) -> None:
        self.rig, self.client, self.recorder = rig, rig.client, recorder
        self.receiver = receiver
        self.duty = ForgetDuty(recorder, rig.client, load())
        set_account("acme", url=receiver.url("/good"))
        set_account("sour", url=receiver.url("/echo"))

    def send(self, account: str, event: dict[str, str], **options: Any) -> str:
        """Send an event; return its id."""
        return send_postback.apply_async((account, event), **options).id

    def deliver(self) -> None:
        """Take in what waits and deliver it, and record that."""
        self.rig.tick()
        self.rig.deliver()
        settle(self.recorder, self.client)

    def turn(self) -> None:
        """Let the history's process do what it does."""
        self.recorder.turn()
        self.duty.turn()

    def end(self, request: str) -> Receipt:
        """Let the history's process go on until a request has ended."""

        def look() -> Receipt | None:
            self.turn()
            receipt = Requests(self.client).read(request)
            return receipt if receipt.ended_ms is not None else None

        return eventually(look, what="the end of the request")

    def state(self, postback_id: str) -> str:
        return self.rig.record(postback_id).state


@pytest.fixture(params=["sqlite", "postgresql"])
def history_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, of each kind."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture
def world(rig, history_url, monkeypatch) -> Iterator[World]:
    """World with an empty database of each kind."""
    no_waiting(monkeypatch)
    monkeypatch.setattr("postbacks.operate.forget.erasure.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("postbacks.operate.forget.rows.LOOK_EVERY_S", 0.001)
    with (
        environment(POSTBACKS_HISTORY_URL=history_url, POSTBACKS_MAX_RESENDS="0"),
        Receiver(lambda post: Answer(500, post.body) if post.path == "/echo" else Answer(200)) as receiver,
    ):
        rig.settings = load()
        recorder = make_recorder(rig.client, history_url)
        settle(recorder, rig.client)
        yield World(rig, receiver, recorder)
        recorder.close()
        reader(load()).dispose()


# -- what is searched afterwards -------------------------------------------------------------------


def value_of(client: Any, key: bytes) -> list[bytes]:
    """Every text that a key holds, read by its type."""
    kind = client.type(key)
    if kind == b"hash":
        return [part for pair in client.hgetall(key).items() for part in pair]
    if kind == b"list":
        return client.lrange(key, 0, -1)
    if kind == b"set":
        return list(client.smembers(key))
    if kind == b"zset":
        return client.zrange(key, 0, -1)
    if kind == b"stream":
        return [part for _, fields in client.xrange(key) for pair in fields.items() for part in pair]
    return [client.get(key)]


def texts_of(client: Any) -> Iterator[tuple[str, bytes]]:
    """Every key of a broker with every text under it, the bodies of messages unpacked, and with its dump."""
    for key in client.scan_iter():
        name = key.decode()
        yield name, key
        yield name, client.dump(key) or b""
        for part in value_of(client, key):
            yield name, part
            if part.startswith(b'{"body"'):
                yield name, base64.b64decode(json.loads(part)["body"])


def found_in(texts: Iterator[tuple[str, bytes]]) -> list[str]:
    """Names of what has the person's number, or its hash, in any spelling."""
    wanted = [*(spelling.encode() for spelling in SPELLINGS), str(HASH).encode()]
    return sorted({name for name, part in texts if any(word in part for word in wanted)})


def database_texts(engine: Any) -> Iterator[tuple[str, bytes]]:
    """Every value of every table, the documents unpacked."""
    with engine.connect() as connection:
        for name, table in schema.metadata.tables.items():
            for row in connection.execute(text(f"SELECT * FROM {name}")).mappings():
                for column, value in row.items():
                    yield f"{name}.{column}", value if isinstance(value, bytes) else str(value).encode()
                if table is schema.documents:
                    for document in documents.unpack(row["packing"], row["row_count"], row["pack"]):
                        yield "a document", document.content


def file_bytes(engine: Any) -> dict[str, bytes]:
    """The files of a database: SQLite's with its log, PostgreSQL's of every table and index with their TOAST."""
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database).removeprefix("file://"))
        return {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*")}
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("CHECKPOINT"))
        directory = Path(connection.execute(text("SHOW data_directory")).scalar_one())
        relations = connection.execute(
            text(
                "SELECT relname, pg_relation_filepath(oid) FROM pg_class "
                "WHERE relkind IN ('r', 'i', 't') AND pg_relation_filepath(oid) IS NOT NULL AND oid >= 16384"
            )
        ).all()
    return {name: (directory / path).read_bytes() for name, path in relations}


def raw_finds(engine: Any) -> list[str]:
    """Names of files with the person's digits, or with the hash as either database stores it."""
    wanted = [b"5557654321", HASH.to_bytes(8, "big", signed=True), HASH.to_bytes(8, "little", signed=True)]
    return [name for name, content in file_bytes(engine).items() if any(word in content for word in wanted)]


def check_bytes(client: Any) -> None:
    """Compare the counts of bytes with what the records say."""
    dead: dict[bytes, int] = {}
    total = 0
    for key in client.scan_iter(f"{keys.RECORD}*"):
        state, account, size = client.hmget(key, "state", "account", "bytes")
        total += int(size or 0)
        if state == b"dead":
            dead[account] = dead.get(account, 0) + int(size)
    assert int(client.get(keys.LEDGER_BYTES)) == total
    assert {
        account: int(size) for account, size in client.zrange(keys.DEAD_BYTES, 0, -1, withscores=True)
    } == dead


# -- all of it -------------------------------------------------------------------------------------


def fill(world: World) -> dict[str, str]:
    """Let the person and somebody else be named everywhere; return ids by what became of them."""
    client, ids = world.client, {}
    set_account("still", url=world.receiver.url("/good"))
    pauses.pause("still")
    for place in ("delivered", "between", "own"):
        options = {"kwargs": {"url": world.receiver.url(f"/good?to={NUMBER}")}} if place == "own" else {}
        ids[place] = world.send("acme", MINE | {"TRACKINGID": place}, **options)
        ids[f"other {place}"] = world.send("acme", HERS | {"TRACKINGID": place})
    ids["pass"] = world.send("acme", PASS | {"REFERENCEVALUE": SPELLINGS[1]})
    ids["dead"] = world.send("sour", MINE)
    ids["left"] = world.send("sour", MO | {"FROM": SPELLINGS[0], "TEXT": f"call {NUMBER}"})
    ids["other dead"] = world.send("sour", HERS)
    ids["paused"] = world.send("still", MINE)
    ids["parked"] = world.send("acme", MINE, countdown=3600)
    client.lpush(keys.QUEUE, f"no message at all, of {SPELLINGS[1]}")
    ids["invalid"] = world.send("acme", MINE)
    message = json.loads(client.lindex(keys.QUEUE, 0))
    body = base64.b64decode(message["body"]).replace(b"Message Sent", NUMBER.encode())
    client.lset(keys.QUEUE, 0, json.dumps(message | {"body": base64.b64encode(body).decode()}))
    world.deliver()
    assert world.rig.scripts.drop(2**53, "", [ids["left"]]) == 1
    with world.recorder.transaction() as connection:  # pruned since, and still in pages that are free
        answers = [{"row": 10**6 + row, "answer": NUMBER * 50} for row in range(500)]
        connection.execute(
            text("INSERT INTO attempts VALUES (:row, 1, 0, 1, 0, 0, 0, NULL, :answer, NULL, NULL)"), answers
        )
    with world.recorder.transaction() as connection:
        if connection.dialect.name == "sqlite":  # as it is built but for Debian's
            connection.execute(text("PRAGMA secure_delete = OFF"))
        connection.execute(text("DELETE FROM attempts WHERE row_id >= 1000000"))
    job = start_resend(Query(number="555\u2011765\u20114321", state="skipped"))
    client.hset(keys.JOB + job.id, "why", f"{SPELLINGS[1]} has called")
    mover = Mover(world.recorder, client, load())

    def has_ended() -> bool:
        world.recorder.turn()
        mover.turn()
        return read_job(job.id).state == "ended"

    eventually(has_ended, what="the end of the job")
    assert rb"555\u2011765\u20114321" in client.hget(keys.JOB + job.id, "query")
    assert ((job.query and job.query.number) or "").startswith("555…21 ·")
    settle(world.recorder, client)
    ids["in intake"] = world.send("acme", MINE)
    assert world.rig.scripts.take_in("a tick that died", 1, 10).messages
    ids["in queue"] = world.send("acme", MINE)
    ids["urgent"] = world.send("acme", MINE, priority=3)
    ids["other in queue"] = world.send("acme", HERS)
    return ids


def test_nothing_of_the_number_is_found_afterwards(world, suites_broker, tmp_path):
    """In no key, dump or file of the broker, in no row, index or file of the history; others have lost nothing."""
    client, engine = world.client, world.recorder.engine
    ids = fill(world)
    others = {name: copies_of(ids[name], engine=engine).copies[0].record for name in ids if name in OTHERS}
    before = client.hgetall(keys.record(ids["dead"]))
    client.config_set("save", "3600 1")
    try:
        assert {"a document", "attempts.excerpt", "urls.url", "business_values.hash"} <= {
            *found_in(database_texts(engine))
        }
        assert raw_finds(engine)
        receipt = world.end(
            forget(number=SPELLINGS[1], now=True, by="ann", why=f"a letter of {SPELLINGS[1]}")
        )
    finally:
        client.config_set("save", "")
    settle(world.recorder, client)

    # the broker: its memory, and what it wrote
    assert found_in(texts_of(client)) == []
    directory = suites_broker.data_dir
    for number, file in enumerate(("appendonlydir", "dump.rdb")):
        copy = tmp_path / f"broker-{number}"
        copy.mkdir(mode=0o700)
        if file == "appendonlydir":
            shutil.copytree(directory / file, copy / file)
            written = b"".join(path.read_bytes() for path in (copy / file).iterdir())
        else:
            shutil.copy(directory / file, copy)
            written = (copy / file).read_bytes()
        assert not [spelling for spelling in SPELLINGS if spelling.encode() in written]
        with (
            EmbeddedBroker(copy, config={"appendonly": "yes" if number == 0 else "no"}) as other,
            other.client() as its_client,
        ):
            assert its_client.exists(keys.record(ids["dead"])) == 1
            assert found_in(texts_of(its_client)) == []

    # the history: rows, index and files
    assert found_in(database_texts(engine)) == []
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM business_values WHERE hash = :hash")
        assert connection.execute(query, {"hash": HASH}).scalar_one() == 0
    assert raw_finds(engine) == []

    # what it was is still known, and that it is forgotten
    after = client.hgetall(keys.record(ids["dead"]))
    same = ("state", "account", "origin", "code", "created_ms", "sequence", "digest", "reason", "endpoint")
    assert [after[name.encode()] for name in same] == [before[name.encode()] for name in same]
    assert int(after[b"bytes"]) < int(before[b"bytes"])
    for name in ("left", "dead", "own"):
        (copy,) = copies_of(ids[name], engine=engine).copies
        assert (copy.record.xml, copy.record.url, copy.record.forgotten_ms is not None) == (b"", "", True)
        assert copy.record.attempts[0].outcome == ("delivered" if name == "own" else "status")

    # somebody else's is as it was, byte for byte
    for name, record in others.items():
        assert copies_of(ids[name], engine=engine).copies[0].record == record
        assert world.rig.record(ids[name]).xml == record.xml
    world.rig.tick()
    assert world.state(ids["other in queue"]) == "waiting"
    assert not any(audit.recheck(world.rig.scripts, audit.run(world.rig.scripts, 10)).faults.values())
    check_bytes(client)

    # the receipt and the journal
    assert receipt.messages == 3
    assert receipt.cancelled == 2  # the paused one, the parked one
    assert receipt.records == 9  # those, four delivered, one dead, two that were no postbacks
    assert receipt.rows == 10  # and the one that had left the broker
    assert receipt.documents == 10
    assert receipt.answers == 1
    assert receipt.append_only.startswith("rewritten in ")
    assert receipt.snapshot.startswith("rewritten in ")
    assert "rewritten" in receipt.database
    assert "backups of the broker and of the history" in receipt.not_reached
    assert Requests(client).open() == []
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT action, subject, by_user, why FROM journal ORDER BY at_ms")
        ).all()
    assert [row.action for row in rows if row.action.startswith("forget")] == ["forget", "forget.end"]
    assert {row.subject for row in rows if row.action.startswith("forget")} == {receipt.pseudonym}
    assert receipt.why == f"a letter of {receipt.pseudonym}"
    assert "7654321" not in receipt.pseudonym


# -- what is still to be delivered -----------------------------------------------------------------

on_sqlite = pytest.mark.parametrize("history_url", ["sqlite"], indirect=True)


@on_sqlite
def test_what_is_still_to_be_delivered_is_delivered_first_and_of_paused_accounts_cancelled(world):
    """Postbacks in the queue and in a lane arrive; then all of them are erased."""
    set_account("still", url=world.receiver.url("/good"))
    pauses.pause("still")
    paused, lane = world.send("still", MINE), world.send("acme", MINE)
    world.rig.tick()
    counted = call("forget", "--number", NUMBER, "--dry-run").stderr
    assert "2 records of the broker, of which 2 are still to be delivered, 1 of a paused account" in counted
    queued = world.send("acme", MINE)
    request = forget(number=NUMBER)
    eventually(lambda: world.turn() or world.state(paused) == "cancelled", what="the end of the paused one")
    assert Requests(world.client).read(request)[5:6] == ("ledger",)
    assert Requests(world.client).read(request).waiting == 2
    assert world.client.llen(keys.QUEUE) == 1
    world.rig.tick()
    world.rig.deliver()
    receipt = world.end(request)
    assert [world.state(postback_id) for postback_id in (lane, queued)] == ["delivered", "delivered"]
    assert len(world.receiver.received) == 2
    assert (receipt.records, receipt.cancelled, receipt.messages, receipt.later) == (3, 1, 0, 0)
    assert found_in(texts_of(world.client)) == []


@on_sqlite
def test_after_a_day_or_when_it_is_asked_for_the_rest_is_cancelled(world):
    """By the request's own end, or by a second command with --now, which is the same request."""
    for end_it in (
        lambda request: world.client.hset(keys.FORGET + request, "until_ms", 1),
        lambda request: forget(number=SPELLINGS[1], now=True) == request,
    ):
        postback_id = world.send("acme", MINE, countdown=3600)
        world.rig.tick()
        request = forget(number=NUMBER)
        for _ in range(3):
            world.turn()
        assert world.state(postback_id) == "parked"
        end_it(request)
        receipt = world.end(request)
        assert (receipt.records, receipt.cancelled) == (1, 1)
        assert world.rig.record(postback_id).xml == b""


@on_sqlite
def test_what_is_sent_just_now_is_erased_when_its_post_has_ended(world):
    """A loop has it: it is revoked, and its document is needed until the end."""
    postback_id = world.send("acme", MINE)
    world.rig.tick()
    claim(world.rig, "loop")
    request = forget(number=NUMBER, now=True)
    for _ in range(5):
        world.turn()
    assert world.rig.record(postback_id).xml
    row = AttemptRow(
        postback_id, "acme/mt", "parked", 1, Attempt(1, 5, "status", 500, 3, "d").to_json(), 9, "ok", "status"
    )
    world.rig.scripts.commit("loop", 30_000, 10, 60, [row])
    assert world.end(request).cancelled == 1
    assert world.rig.record(postback_id).attempts == (Attempt(1, 5, "status", 500, 3),)


@on_sqlite
def test_what_a_tick_or_a_worker_holds_is_waited_for(world):
    """Neither the intake of a living tick nor what kombu has given a worker is touched."""
    in_intake = world.send("acme", MINE)
    tick = world.rig.scripts
    assert tick.take_in("tick", int(load().intake_lease_s * 1000), 10).messages
    world.send("acme", MINE)
    raw = world.client.lpop(keys.QUEUE)
    world.client.hset("unacked", "tag", json.dumps([json.loads(raw), "", "postbacks"]))
    request = forget(number=NUMBER, now=True)
    for _ in range(5):
        world.turn()
    assert Requests(world.client).read(request).waiting == 2
    assert world.client.llen(keys.INTAKE) == 1
    tick.end_intake("tick")
    world.client.delete("unacked")
    receipt = world.end(request)
    assert (receipt.messages, world.client.llen(keys.INTAKE)) == (1, 0)
    assert world.client.hget(keys.record(in_intake), "state") == b"cancelled"


@on_sqlite
def test_what_is_accepted_after_the_request_is_another_matter(world):
    """Record and row stay whole, and the receipt counts them."""
    before = world.send("acme", MINE)
    world.deliver()
    request = forget(number=NUMBER)
    after = world.send("acme", MINE)
    world.client.hset(keys.FORGET + request, "listed", 1)  # as if it had come a moment later
    world.deliver()
    receipt = world.end(request)
    assert (receipt.records, receipt.rows, receipt.later) == (1, 1, 1)
    assert f"1 postback accepted after {iso(receipt.requested_ms)}" in receipt.not_reached
    assert world.rig.record(before).forgotten_ms
    assert world.rig.record(after).forgotten_ms is None
    (copy,) = copies_of(after, engine=world.recorder.engine).copies
    assert NUMBER.encode() in copy.record.xml


# -- what may happen meanwhile ---------------------------------------------------------------------


def test_a_record_that_was_read_before_and_is_written_after_leaves_nothing(world, monkeypatch):
    """The recorder is late: it has the document in its hands while the broker's part is done."""
    world.send("acme", MINE)
    world.rig.tick()
    world.rig.deliver()
    request = forget(number=NUMBER)
    read = world.recorder._records.read
    erased = []

    def read_late(postback_ids: Any) -> Any:
        records = read(postback_ids)
        if not erased:
            for _ in range(3):  # the whole of the broker's part, and as far into the history's as it comes
                world.duty.turn()
            erased.append(Requests(world.client).read(request).phase)
        return records

    monkeypatch.setattr(world.recorder._records, "read", read_late)
    receipt = world.end(request)
    settle(world.recorder, world.client)
    assert erased == ["history"]
    assert (receipt.records, receipt.rows, receipt.documents) == (1, 1, 1)
    assert found_in(database_texts(world.recorder.engine)) == []


@on_sqlite
def test_a_request_goes_on_after_the_death_of_whoever_did_it(world):
    """After any step: another process does what is left, and the counts are those of one."""
    for steps in (3, 7, 9, 12):
        dead = world.send("sour", MINE)
        world.send("acme", MINE)
        world.deliver()
        world.rig.scripts.drop(2**53, "", [dead])
        settle(world.recorder, world.client)
        request = forget(number=NUMBER, now=True)
        history = HistoryPart(world.recorder, world.client)
        for _ in zip(range(steps), Erasure(world.client, load(), request, history).steps(), strict=False):
            world.recorder.turn()
        receipt = world.end(request)
        assert (receipt.records, receipt.rows, receipt.documents, receipt.values) == (1, 2, 2, 4), steps
        assert found_in(texts_of(world.client)) == []
        assert found_in(database_texts(world.recorder.engine)) == []


@on_sqlite
def test_what_comes_back_from_the_history_meanwhile_is_found_as_well(world, monkeypatch):
    """A resend has read its document just before that was erased."""
    postback_id = world.send("sour", MINE)
    world.deliver()
    world.rig.scripts.drop(2**53, "", [postback_id])
    settle(world.recorder, world.client)
    steps = HistoryPart.steps

    def steps_after_resend(self: HistoryPart, person: Person, request: str) -> Any:
        copy = copies_of(postback_id).copies[0]
        yield from steps(self, person, request)
        if copy.record.xml:
            row = put_back_row(copy, find_accounts(store(), ["sour"])["sour"])
            world.rig.scripts.put_back(1, row, copy.record.attempts)

    monkeypatch.setattr(HistoryPart, "steps", steps_after_resend)
    receipt = world.end(forget(number=NUMBER, now=True))
    assert (receipt.records, receipt.cancelled) == (1, 1)
    assert world.state(postback_id) == "cancelled"
    assert found_in(texts_of(world.client)) == []
    assert found_in(database_texts(world.recorder.engine)) == []


# -- what is told of a forgotten postback ----------------------------------------------------------


@on_sqlite
def test_a_forgotten_postback_says_so_and_cannot_be_sent_again(world):
    """Neither from the broker nor from the history, nor does the same event under its id make another one."""
    here, left = world.send("sour", MINE), world.send("sour", MINE)
    world.deliver()
    world.rig.scripts.drop(2**53, "", [left])
    receipt = world.end(forget(number=NUMBER))
    settle(world.recorder, world.client)
    words = f"its document was forgotten on {iso(receipt.ended_ms)[:10]} (postbacks forget)"
    for postback_id in (here, left):
        with pytest.raises(PostbacksError, match=r"cannot be sent again") as refused:
            resend(postback_id)
        assert words in str(refused.value)
        shown = call("show", postback_id)
        assert f"\nforgotten     {receipt.to_public_dict()['requested'][:10]}" in shown.stdout
        assert json.loads(call("show", postback_id, "--json").stdout)["forgotten"]
        assert words in call("show", postback_id, "--xml", "--reveal", "--why", "a test").stderr
    assert world.rig.scripts.replay(here) == "dead"
    send_postback.apply_async(("sour", MINE), task_id=here)
    world.rig.tick()
    assert world.state(here) == "dead"
    assert world.rig.record(here).xml == b""
    (row,) = [row for row in Ledger(world.client).dead() if row.id == here]
    assert row.reason == "status"


# -- the command -----------------------------------------------------------------------------------


@on_sqlite
def test_the_command_counts_asks_and_prints_the_receipt(world):
    """First how much it is; without a terminal it wants --yes; then what was reached and what not."""
    for number in (MINE, HERS):
        world.send("acme", number)
    world.deliver()
    counted = call("forget", "--number", NUMBER, "--dry-run", "--json")
    assert {"records": 1, "waiting": 0, "messages": 0, "rows": 1}.items() <= json.loads(
        counted.stdout
    ).items()
    none = call("forget", "--number", "15550009999", "--dry-run").stderr
    assert none.startswith("Nothing is found of 1555…99 ·")
    assert "are erased" not in none
    unasked = call("forget", "--number", NUMBER)
    assert (unasked.exit_code, "say --yes" in unasked.stderr) == (2, True)
    assert "1 record of the broker" in unasked.stderr
    assert Requests(world.client).open() == []
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.01):
            world.turn()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        done = call("forget", "--number", "-", "--yes", "--why", "a letter", input=f"{SPELLINGS[1]}\n")
        told = call("forget", "--number", NUMBER, "--yes", "--json")
    finally:
        stop.set()
        thread.join()
    assert done.exit_code == 0, done.output
    assert "1 record erased" in done.stdout
    assert "not reached   " in done.stdout
    assert not any(spelling in done.output for spelling in SPELLINGS)
    assert json.loads(told.stdout)["records"] == 0
    assert json.loads(told.stdout)["ended"]


@on_sqlite
def test_ctrl_c_ends_the_waiting_and_not_the_request(world, monkeypatch):
    """The command says so, and waits for the same request again when it is typed anew."""

    def interrupt(_progress: Any, _receipt: Receipt) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("postbacks.cli.forget._Progress.__call__", interrupt)
    world.send("acme", MINE, countdown=3600)
    world.rig.tick()
    stopped = call("forget", "--number", NUMBER, "--yes")
    (request,) = Requests(world.client).open()
    assert (stopped.exit_code, f"Request {request} goes on" in stopped.stderr) == (130, True)
    assert forget(number=NUMBER, now=True) == request
    assert world.end(request).cancelled == 1


@on_sqlite
def test_a_history_that_nobody_runs_is_not_left_out_in_silence(world):
    """The command refuses before it does anything."""
    end_lease(world.client)
    refused = call("forget", "--number", NUMBER, "--yes")
    assert (refused.exit_code, "start `postbacks history run`" in refused.stderr) == (1, True)
    assert Requests(world.client).open() == []


def test_without_a_history_the_command_does_the_brokers_part(rig, receiver):
    """All of it, by itself, and it says that there is no history."""
    set_account("acme", url=receiver.url("/"))
    postback_id = send_postback.delay("acme", EMAIL).id
    rig.tick()
    rig.deliver()
    done = call("forget", "--email", "ANN@example.com", "--yes")
    assert done.exit_code == 0, done.output
    assert "there is no history" in done.stdout
    assert done.stderr.count("journal: ") == 1
    assert rig.record(postback_id).forgotten_ms
    assert not [name for name, part in texts_of(rig.client) if b"ann@example" in part.lower()]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give one of the two"),
        (("--number", "1", "--email", "a@b"), "give one of the two"),
        (("--number", "28444"), "short code"),
        (("--number", "+49 call me"), "no number"),
        (("--email", "ann"), "no e-mail address"),
    ],
)
def test_what_names_nobody_is_refused(broker, args, words):
    """A sentence, and exit code 2."""
    refused = call("forget", *args)
    assert (refused.exit_code, words in refused.stderr) == (2, True), refused.output


def test_the_value_is_found_in_messages_that_nobody_can_read():
    """In text, in a packed body, compressed and escaped; a text that mentions the person is somebody else's."""
    person = Person.of(number=NUMBER)
    body = json.dumps([["acme", {"TO": NUMBER, "ORIGIN": "?"}], {}, {}]).encode()
    for packed in (body, zlib.compress(body), bz2.compress(body)):
        message = json.dumps({"body": base64.b64encode(packed).decode(), "headers": {}}).encode()
        assert person.is_named_in_message(message)
    assert person.is_named_in_message(f"to {SPELLINGS[1]}!".encode())
    assert Person.of(email="ann@example.com").is_mentioned(rb'{"EMAIL": "Ann\u0040example.com"}')
    assert not person.is_named_in_message(f"to {OTHER}".encode())
    assert not person.is_named_in_document(render(parse_event(MO | {"TEXT": f"call {NUMBER}"})))
