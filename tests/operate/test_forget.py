"""A person is forgotten: whatever named the person is erased wherever it stood, and nothing else is."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from events import MO, MT
from helpers import environment, eventually, set_account
from recording import make_recorder, no_waiting, settle
from sqlalchemy import text

from postbacks import keys, send_postback
from postbacks.cli import main
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.doctor import audit
from postbacks.errors import PostbacksError
from postbacks.history import copies_of, documents, schema, values
from postbacks.history.engine import reader
from postbacks.operate import pauses
from postbacks.operate.forget import Receipt, count, forget, wait
from postbacks.operate.forget.duty import ForgetDuty
from postbacks.operate.forget.person import Person
from postbacks.operate.forget.request import Requests
from postbacks.operate.resend import resend
from postbacks.settings import load

pytest_plugins = ["history.conftest"]

#: Number of the person, as events, people and a receiver write it.
NUMBER = "15557654321"
SPELLINGS = ("5557654321", "+1 (555) 765-4321")
#: Number of somebody else, whose postbacks stand beside the person's.
OTHER = "15551234567"
HASH = values.hash_of("number", NUMBER)
OTHERS = ("other delivered", "other between", "other own", "other dead")
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

        return eventually(look, 30, "the end of the request")

    def state(self, postback_id: str) -> str:
        return self.rig.record(postback_id).state


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
    return [
        name for name, content in file_bytes(engine).items() if any(word in content for word in wanted)
    ]


def check_bytes(client: Any) -> None:
    """What the counts say of bytes is what the records say."""
    dead: dict[bytes, int] = {}
    total = 0
    for key in client.scan_iter(f"{keys.RECORD}*"):
        state, account, size = client.hmget(key, "state", "account", "bytes")
        total += int(size or 0)
        if state == b"dead":
            dead[account] = dead.get(account, 0) + int(size)
    assert int(client.get(keys.LEDGER_BYTES)) == total
    assert {account: int(size) for account, size in client.zrange(keys.DEAD_BYTES, 0, -1, withscores=True)} == dead


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
        receipt = world.end(forget(number=SPELLINGS[1], now=True, by="ann", why="a letter"))
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
    assert receipt.records == 8  # those, three delivered, one dead, two that were no postbacks
    assert receipt.rows == 9  # and the one that had left the broker
    assert receipt.documents == 9
    assert receipt.answers == 1
    assert receipt.append_only.startswith("rewritten in ")
    assert receipt.snapshot.startswith("rewritten in ")
    assert "rewritten" in receipt.database
    assert "backups of the broker and of the history" in receipt.not_reached
    assert Requests(client).open() == []
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT action, subject, by_user, why FROM journal ORDER BY at_ms")).all()
    assert [row.action for row in rows if row.action.startswith("forget")] == ["forget", "forget.end"]
    assert {row.subject for row in rows if row.action.startswith("forget")} == {receipt.pseudonym}
    assert "7654321" not in receipt.pseudonym
