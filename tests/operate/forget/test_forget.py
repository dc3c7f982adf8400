"""A person is forgotten: whatever named the person is erased wherever it stood, and nothing else is."""

from __future__ import annotations

import base64
import bz2
import json
import shutil
import zlib

import pytest
from events import MO, example
from forget_world import HASH, HERS, MINE, NUMBER, OTHER, SPELLINGS, World, call
from helpers import eventually, set_account
from recording import both, settle
from sqlalchemy import text
from traces import check_bytes, database_texts, found_in, raw_finds, texts_of

from postbacks import keys, send_postback
from postbacks.catalogue import event_type, parse_event
from postbacks.catalogue.xml import render
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.doctor import audit
from postbacks.errors import PostbacksError
from postbacks.history import Query, copies_of
from postbacks.ledger.ledger import Ledger
from postbacks.ledger.record import iso
from postbacks.operate import pauses
from postbacks.operate.forget import forget
from postbacks.operate.forget.person import Person
from postbacks.operate.forget.request import Requests
from postbacks.operate.jobs.mover import Mover
from postbacks.operate.jobs.requests import start_resend
from postbacks.operate.jobs.status import read as read_job
from postbacks.operate.resend import resend
from postbacks.settings import load

OTHERS = ("other delivered", "other between", "other own", "other dead")
PASS = example(event_type("GENERATE_PASS", "N801"))


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


@both
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
