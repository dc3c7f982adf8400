"""docs/sending.md: its Python runs, its message arrives, its pattern survives a kill, its table of errors is the code's."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import types
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import django_shop
import pytest
import sqlalchemy
from events import EVENT, MO
from helpers import Rig, check_places, environment, refusing_port, set_account
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import postbacks
from postbacks import BrokerError, keys, send_postback
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.queue.message import Unreadable, decode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sending.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's blocks of a language, in their order."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", PAGE)


def block_with(words: str) -> str:
    """The one block of Python that has these words."""
    (block,) = [block for block in blocks("python") if words in block]
    return block


@pytest.fixture
def page(broker, tmp_path, monkeypatch):
    """A module that runs blocks as a program of the page's reader does, where Django is set up."""
    django_shop.set_up()
    from django.db import connections

    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("sending_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def run(*blocks: str) -> dict[str, object]:
        for block in blocks:
            exec(compile(block, "docs/sending.md", "exec"), vars(module))
        return vars(module)

    yield run
    scope = vars(module)
    for name, listener in (("after_commit", "send_collected"), ("after_soft_rollback", "forget_undone")):
        if listener in scope:
            sqlalchemy.event.remove(Session, name, scope[listener])
    for value in scope.values():
        if isinstance(value, sqlalchemy.Engine):
            value.dispose()
    connections.close_all()


def sent(broker) -> list[tuple[str, str]]:
    """Account and id of each message in the queue, oldest first."""
    with broker.client() as client:
        messages = [decode(raw) for raw in reversed(client.lrange(keys.QUEUE, 0, -1))]
    return [(message.args[0], message.id) for message in messages]


# -- the blocks of Python ----------------------------------------------------------------------------


def test_every_block_of_python_runs_in_the_order_of_the_page(broker, page):
    """Each call of the page is in the queue then; the calls inside functions are made here."""
    scope = page(*blocks("python"))
    with closing(broker.client()) as client:
        before = client.llen(keys.QUEUE)
        answer = scope["app"].test_client().post("/messages")
        scope["message_received"].apply(args=("acme", EVENT), task_id="task-1", throw=True)
        assert client.llen(keys.QUEUE) == before + 2
    ids = [postback_id for _, postback_id in sent(broker)]
    assert ids[-2:] == [answer.json["postback"], "task-1"]
    assert {"order-17", "order-18", "order-19", scope["result"].id} <= set(ids)
    assert {account for account, _ in sent(broker)} == {"acme"}


def test_what_a_session_of_sqlalchemy_undoes_is_not_sent(broker, page):
    """A rollback, a close, a savepoint undone, a flush that fails; a savepoint that is kept sends at the commit alone."""
    scope = page(block_with("def send_after_commit"))
    later = scope["send_after_commit"]
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
    event = {**MO, "TEXT": "HELP"}
    with closing(broker.client()) as client, Session(engine) as session:
        client.delete(keys.QUEUE)
        later(session, "undone", event)
        session.rollback()
        session.commit()
        later(session, "closed", event)
        session.close()
        later(session, "outer", event)
        with session.begin_nested():
            later(session, "kept", event)
        with session.begin_nested() as undone:
            with session.begin_nested():
                later(session, "within", event)
            later(session, "undone", event)
            undone.rollback()
        assert client.llen(keys.QUEUE) == 0
        session.commit()
        assert [account for account, _ in sent(broker)] == ["outer", "kept"]
        session.commit()
        assert client.llen(keys.QUEUE) == 2
        owed = page(block_with("class Owed"))["Owed"]
        owed.metadata.create_all(session.connection())
        later(session, "acme", event)
        nested = session.begin_nested()
        later(session, "undone", event)
        session.add(owed(id="1"))  # which lacks what it must have
        with pytest.raises(IntegrityError), nested:
            session.flush()
        session.commit()
        assert [account for account, _ in sent(broker)[2:]] == ["acme"]
    engine.dispose()


# -- when the process dies after the commit ----------------------------------------------------------

#: Moments of a session at which its process is killed, and how many of them it reaches.
KILLS = {
    "between commit and call": ("after_commit", 1),
    "between call and mark": ("before_commit", 2),
}
#: A program that lets one child do what the page's program does, and die, for each of the kills.
KILLED = """
import json, os, signal, sys
import sqlalchemy
from sqlalchemy.orm import Session
import owed

def die_at(left):
    def die(session):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return die

url, tags, kills = sys.argv[1], *map(json.loads, sys.argv[2:])
for moment, passes in kills:
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        continue
    engine = sqlalchemy.create_engine(url)
    owed.Base.metadata.create_all(engine)
    sqlalchemy.event.listen(Session, moment, die_at(passes))
    with Session(engine) as session:
        owed.receive_message(session, owed.SmsReceived.model_validate(tags))
    os._exit(0)
"""


def test_a_sweep_sends_once_what_killed_processes_have_committed(rig, page, receiver, tmp_path):
    """The program is the page's. A sweep that is repeated as if nothing were marked makes no second postback."""
    set_account("acme", url=receiver.url())
    pattern = block_with("class Owed")
    (tmp_path / "owed.py").write_text(pattern)
    url = f"sqlite:///{tmp_path}/owed.db"
    tags = {name: value for name, value in MO.items() if name not in {"ORIGIN", "CODE"}}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, url, json.dumps(tags), json.dumps([*KILLS.values()])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * 2, done.stderr
    assert rig.client.llen(keys.QUEUE) == 1  # the second one's
    scope = page(pattern)
    engine = scope["engine_of_the_test"] = sqlalchemy.create_engine(url)
    with Session(engine) as session:
        assert scope["sweep"](session) == 0  # younger than a minute: the call itself may be under way
        assert scope["sweep"](session, after=timedelta(0)) == 2
        assert scope["sweep"](session, after=timedelta(0)) == 0
        assert rig.client.llen(keys.QUEUE) == 3
        deliver(rig)
        session.execute(sqlalchemy.update(scope["Owed"]).values(sent_at=None))
        session.commit()
        assert scope["sweep"](session, after=timedelta(0)) == 2
    deliver(rig)
    assert check_places(rig.client) == {"done": 2}
    assert [post.tags["TEXT"] for post in receiver.received] == ["STOP", "STOP"]


def test_a_sweep_leaves_to_the_next_one_what_a_broker_that_is_gone_does_not_take(broker, page):
    scope = page(block_with("class Owed"))
    engine = scope["engine_of_the_test"] = sqlalchemy.create_engine("sqlite://")
    scope["Base"].metadata.create_all(engine)
    with Session(engine) as session:
        with environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{refusing_port()}/0"):
            scope["receive_message"](session, postbacks.parse_event(MO))
            with pytest.raises(BrokerError):
                scope["sweep"](session, after=timedelta(0))
        assert sent(broker) == []
        assert scope["sweep"](session, after=timedelta(0)) == 1
        assert [account for account, _ in sent(broker)] == ["acme"]


#: What makes a row one that can never be sent -> words of the reason.
BAD_ROWS = {
    "account": ({"account": "no name"}, "is no account name"),
    "event": ({"event": {**MO, "FROM": "+1"}}, "FROM: must be"),
    "id": ({"id": "order-17"}, "order-17 is taken"),
}


@pytest.mark.parametrize(("columns", "words"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_a_row_that_can_never_be_sent_is_set_aside_with_its_reason_and_starves_no_other(
    rig, page, caplog, columns, words
):
    """The page's sweep, of one row at a time: the bad one is the oldest, and logged once; mended, it is sent."""
    send_postback.apply_async(("globex", EVENT), task_id="order-17")
    rig.tick()
    scope = page(block_with("class Owed").replace("limit(1000)", "limit(1)"))
    engine = scope["engine_of_the_test"] = sqlalchemy.create_engine("sqlite://")
    scope["Base"].metadata.create_all(engine)
    with Session(engine) as session:
        row = scope["owe"](session, "acme", postbacks.parse_event(MO))
        good = {name: getattr(row, name) for name in columns}
        for name, value in (columns | {"made_at": datetime(2013, 11, 5, tzinfo=UTC)}).items():
            setattr(row, name, value)
        scope["owe"](session, "acme", postbacks.parse_event(MO))
        session.commit()
        assert [scope["sweep"](session, after=timedelta(0)) for _ in range(3)] == [0, 1, 0]
        assert words in row.refused
        assert [record.levelname for record in caplog.records if words in record.getMessage()] == ["ERROR"]
        for name, value in good.items():
            setattr(row, name, value)
        row.refused = None
        session.commit()
        assert scope["sweep"](session, after=timedelta(0)) == 1


def test_a_setting_that_cannot_be_sets_no_row_aside(broker, page):
    """The fault is the environment's: once that is mended, all is sent."""
    scope = page(block_with("class Owed"))
    engine = scope["engine_of_the_test"] = sqlalchemy.create_engine("sqlite://")
    scope["Base"].metadata.create_all(engine)
    with Session(engine) as session:
        scope["owe"](session, "acme", postbacks.parse_event(MO))
        session.commit()
        with environment(POSTBACKS_BROKER_URL="nonsense"), pytest.raises(postbacks.BadSetting):
            scope["sweep"](session, after=timedelta(0))
        assert scope["sweep"](session, after=timedelta(0)) == 1


@pytest.mark.parametrize(
    ("account", "event", "error"),
    [("no name", MO, postbacks.InvalidAccount), ("acme", {**MO, "TO": "x"}, postbacks.InvalidEvent)],
)
def test_a_bad_account_or_event_raises_at_the_call_and_not_out_of_the_commit(
    broker, page, account, event, error
):
    """At the call the transaction can still be rolled back."""
    scope = page(block_with("def send_after_commit"), block_with("class Owed"))
    engine = scope["engine_of_the_test"] = sqlalchemy.create_engine("sqlite://")
    scope["Base"].metadata.create_all(engine)
    with Session(engine) as session:
        for function in ("send_after_commit", "owe"):
            with pytest.raises(error):
                scope[function](session, account, event)
        session.commit()
        assert scope["sweep"](session, after=timedelta(0)) == 0
    assert sent(broker) == []


def test_a_sweep_that_loses_its_broker_keeps_its_marks_and_holds_its_rows_until_then(broker, page):
    """Commit once, at the end, so that rows which were read with a lock stay locked."""
    scope = page(block_with("class Owed"))
    owed, commits = scope["Owed"], []
    engine = scope["engine_of_the_test"] = sqlalchemy.create_engine("sqlite://")
    scope["Base"].metadata.create_all(engine)
    with Session(engine) as session, ExitStack() as stack:
        for _ in range(3):
            scope["owe"](session, "acme", postbacks.parse_event(MO))
        session.commit()
        sqlalchemy.event.listen(session, "after_commit", commits.append)
        dead = {"POSTBACKS_BROKER_URL": f"redis://127.0.0.1:{refusing_port()}/0"}
        marks = []

        @sqlalchemy.event.listens_for(owed.sent_at, "set")
        def lose_the_broker(*_):
            marks.append(1)
            if len(marks) == 2:
                stack.enter_context(environment(**dead))

        with pytest.raises(BrokerError):
            scope["sweep"](session, after=timedelta(0))
        session.rollback()
        assert session.scalar(sqlalchemy.select(sqlalchemy.func.count(owed.sent_at))) == 2
    assert len(commits) == 1
    assert len(sent(broker)) == 2


def deliver(rig: Rig) -> None:
    """Take in and deliver all that waits."""
    rig.tick()
    rig.deliver()


# -- async code --------------------------------------------------------------------------------------


def test_a_call_in_a_thread_leaves_the_event_loop_free_and_a_cancelled_one_may_be_sent(own_broker):
    """The broker is frozen meanwhile: the loop turns, and what was cancelled arrives when the broker answers."""

    async def call() -> int:
        task = asyncio.create_task(
            asyncio.to_thread(send_postback.apply_async, ("acme", EVENT), task_id="order-17")
        )
        turns = 0
        while turns < 20:
            await asyncio.sleep(0.01)
            turns += 1
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        own_broker.resume()
        return turns

    with environment(POSTBACKS_BROKER_URL=own_broker.url, POSTBACKS_BROKER_TIMEOUT_S="20"):
        send_postback.delay("acme", EVENT)
        own_broker.pause()
        try:
            assert asyncio.run(call()) == 20
        finally:
            own_broker.resume()
    assert [postback_id for _, postback_id in sent(own_broker)][1:] == ["order-17"]


# -- what a call raises ------------------------------------------------------------------------------


def at_broker(url: str, **more: str):
    """Call with a broker of one's own."""

    def call() -> None:
        with environment(POSTBACKS_BROKER_URL=url, **more):
            send_postback.apply_async(("acme", EVENT), task_id="order-18")

    return call


def taken() -> None:
    """Call with the id of another account's postback."""
    send_postback.apply_async(("globex", EVENT), task_id="order-17")


def unfit() -> None:
    """Call with a broker that evicts."""
    with EmbeddedBroker(config={"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}) as evicting:
        at_broker(evicting.url)()


def few_replicas() -> None:
    """Call where a replica has to have the message, and there is none."""
    with environment(POSTBACKS_WAIT_REPLICAS="1"):
        send_postback.apply_async(("acme", EVENT), task_id="order-18")


#: What the table names -> the call that raises it.
RAISED = {
    "InvalidEvent": lambda: send_postback.delay("acme", {**EVENT, "MOBILE": "+1"}),
    "InvalidAccount": lambda: send_postback.delay("a b", EVENT),
    "InvalidUrl": lambda: send_postback.delay("acme", EVENT, url="nowhere"),
    "UnsupportedOption": lambda: send_postback.apply_async(("acme", EVENT), expires=5),
    "BadSetting": at_broker("nonsense"),
    "IdTaken": taken,
    "BrokerUnreachable": at_broker(f"redis://127.0.0.1:{refusing_port()}/0"),
    "BrokerUnfit": unfit,
    "NotReplicated": few_replicas,
    "PostbackFailed": lambda: send_postback("acme", EVENT, url=f"http://127.0.0.1:{refusing_port()}/"),
    "PostbackDead": lambda: send_postback("nobody", EVENT),
    "PostbackSkipped": lambda: send_postback("globex", EVENT),
}
ROWS = PAGE.split("| raised | when |")[1].split("\n\n")[0].splitlines()[2:]


@pytest.mark.parametrize("name", RAISED)
def test_the_table_of_errors_is_what_the_calls_raise(rig, name):
    """The table says of each whether anything was sent."""
    set_account("acme", url="http://127.0.0.1:8080/")
    set_account("globex", url="http://127.0.0.1:8080/", off={"SUB"})
    send_postback.apply_async(("acme", EVENT), task_id="order-17")
    rig.tick()
    (row,) = [row for row in ROWS if f"`{name}`" in row]
    with pytest.raises(postbacks.PostbacksError) as raised:
        RAISED[name]()
    assert type(raised.value).__name__ == name
    assert isinstance(raised.value, BrokerError) == (
        name in {"BrokerUnreachable", "BrokerUnfit", "NotReplicated"}
    )
    if "nothing was sent" in row:
        assert rig.client.llen(keys.QUEUE) == 0
    if name == "NotReplicated":
        assert sent_ids(rig) == ["order-18"]


def sent_ids(rig: Rig) -> list[str]:
    return [decode(raw).id for raw in rig.client.lrange(keys.QUEUE, 0, -1)]


def test_the_table_of_errors_names_each_error_that_has_a_test_and_no_other():
    named = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in ROWS))
    assert sorted(named) == sorted(RAISED)


def test_an_account_that_nobody_knows_raises_nothing(rig):
    """The ledger has it, with the reason that the page names."""
    set_account("acme", off={"SUB"})
    set_account("globex")
    results = [send_postback.delay(account, EVENT) for account in ("nobody", "globex", "acme")]
    rig.tick()
    records = [rig.record(result.id) for result in results]
    assert [(record.state, record.reason) for record in records] == [
        ("dead", "unknown_account"),
        ("dead", "no_url"),
        ("skipped", "origin_off"),
    ]


# -- from other languages ----------------------------------------------------------------------------


def test_the_message_of_the_page_is_a_postback_and_its_body_is_the_one_beside_it(rig, receiver):
    """Pushed as it stands, white space included."""
    message, body = blocks("json")
    set_account("acme", url=receiver.url())
    rig.client.lpush("postbacks", message)
    deliver(rig)
    (post,) = receiver.received
    args, kwargs, embed = json.loads(body)
    assert (post.postback_id, json.loads(base64.b64decode(json.loads(message)["body"]))) == (
        "order-17",
        [args, kwargs, embed],
    )
    assert {"ORIGIN": "SUB", "CODE": "N301"} | post.tags == args[1]


def test_the_fields_that_the_page_calls_needed_are_those_without_which_it_cannot_be_read():
    """Every other one may be left out, one by one and all together."""
    whole = json.loads(blocks("json")[0])
    paths = [(name,) for name in whole] + [
        (part, name) for part in ("headers", "properties") for name in whole[part]
    ]
    needed = set()
    for path in paths:
        message = json.loads(json.dumps(whole))
        inner = message[path[0]] if len(path) == 2 else message
        del inner[path[-1]]
        try:
            assert decode(json.dumps(message).encode()).id == "order-17"
        except Unreadable:
            needed.add(".".join(path))
    assert needed == {
        "body",
        "content-type",
        "headers",
        "headers.id",
        "headers.task",
        "properties",
        "properties.body_encoding",
    }
    rows = PAGE.split("| field | |")[1].split("\n\n")[0]
    said = set(
        re.findall(
            r"`([\w.-]+)`", "".join(row.split("|")[1] for row in rows.splitlines() if "| needed" in row)
        )
    )
    assert said == {"headers.id", "headers.task", "content-type", "body"}
    least = {
        "body": base64.b64decode(whole["body"]).decode(), "content-type": "application/json",
        "headers": {"task": "postbacks.send_postback", "id": "order-17"},
    }  # fmt: skip
    assert decode(json.dumps(least).encode()).args[0] == "acme"
