"""The version before and this one on one broker, and what the version before has left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet
from events import EVENT
from helpers import BASE_ENV, check_places, environment, eventually, set_account
from identities import authority

from postbacks import keys, resend, send_postback, send_postbacks, settings
from postbacks.accounts import secrets
from postbacks.cli import main
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.devtools.stack import CeleryProcess
from postbacks.doctor import Doctor
from postbacks.ledger.ledger import Ledger
from postbacks.monitor.health import judge
from postbacks.queue.message import NEWER
from postbacks.queue.protocol import SCHEMA, SCHEMA_HEADER
from postbacks.queue.scripts import Scripts
from postbacks.version import SILENT, VERSION

pytestmark = pytest.mark.usefixtures("forked")

HERE = Path(__file__).parent
OLD = {"PYTHONPATH": str(HERE / f"postbacks-{SILENT}.zip")}
#: How a program of the version before begins that ticks and delivers by itself.
OLD_PARTS = """
import postbacks; assert '.zip' in postbacks.__file__
from postbacks import accounts, settings
from postbacks.broker import client
from postbacks.delivery.loop import DeliveryLoop
from postbacks.delivery.profile import Profiles
from postbacks.delivery.transport import CurlAdapter
from postbacks.queue.scripts import Scripts
from postbacks.queue.tick import Tick
from postbacks.tasks import decide
now, scripts, store = settings.load(), Scripts(client()), accounts.store()

def tick(): Tick(scripts, store, now).run()
def deliver(): DeliveryLoop(scripts, CurlAdapter(now), Profiles(store, now), now, decide).run()

"""


def restore(client, port: int) -> int:
    """Put a recorded broker back; returns when it was recorded, in ms."""
    text = (HERE / f"broker-{SILENT}.json").read_text().replace("{port}", str(port))
    found = json.loads(text)
    for name, key in found.items():
        raw, value = name.encode("latin-1"), key["value"]
        if key["type"] == "string":
            client.set(raw, value.encode("latin-1"))
        elif key["type"] == "list":
            client.rpush(raw, *(one.encode("latin-1") for one in value))
        elif key["type"] == "hash":
            client.hset(raw, mapping={k.encode("latin-1"): v.encode("latin-1") for k, v in value.items()})
        else:
            client.zadd(raw, {one.encode("latin-1"): score for one, score in value})
    return int(found[keys.LAST_TICK]["value"])


def test_what_the_version_before_left_behind_comes_to_its_end(rig):
    """Waiting, parked, in flight, held, dead, in the queue and in a dead tick's hands: recorded by 0.1.0 itself."""
    with Receiver() as receiver:
        recorded_ms = restore(rig.client, receiver.port)
        ledger = Ledger(rig.client)
        before = {key.decode().removeprefix(keys.RECORD) for key in rig.client.keys(f"{keys.RECORD}*")}
        states = {one: ledger.get(one).state for one in before}
        begun = {
            one.decode() for key in rig.client.keys(f"{keys.CLAIMS}*")
            for one, flag in rig.client.hgetall(key).items() if flag == b"1"
        }  # fmt: skip
        assert set(states.values()) == {
            "waiting", "held", "sending", "parked", "delivered", "dead", "skipped", "cancelled"
        }  # fmt: skip
        rig.scripts.clock_offset_ms = recorded_ms + 3_600_000 - int(time.time() * 1000)
        for _ in range(3):
            rig.tick()
            rig.deliver()
        after = {key.decode().removeprefix(keys.RECORD) for key in rig.client.keys(f"{keys.RECORD}*")}
        assert len(after - before) == 2, "the queue's and the dead tick's message"
        for one in after:
            record, was = ledger.get(one), states.get(one, "")
            open_before = was in {"", "waiting", "held", "sending", "parked"}
            assert record.state == ("delivered" if open_before else was)
            assert (record.attempts[0].outcome == "unknown") == (one in begun) if record.attempts else True
        assert {len(posts) for posts in receiver.by_id().values()} == {1}
        failed = [one for one in before if states[one] == "dead" and ledger.get(one).url]
        assert [resend(one) for one in failed] == ["waiting"]
        rig.tick()
        rig.deliver()
        assert [ledger.get(one).state for one in failed] == ["delivered"]
        report = Doctor(rig.scripts, rig.settings, pause_s=0).examine()
    assert [result.sentence for result in report.wrong if result.check.name != "clock"] == []
    assert report.findings("schemas") == {}
    check_places(rig.client)


def test_a_worker_of_the_version_before_and_one_of_this_run_side_by_side(broker, tmp_path):
    """Old and new workers, beats and producers; resends too: all delivered, none twice, and the doctor says who runs.

    The old ones give no signs of life, and alone they are called silent, not missing.
    """
    env = {**BASE_ENV, "POSTBACKS_BROKER_URL": broker.url, "POSTBACKS_RETRY_COUNTDOWN_S": "1"}
    quiet = ["--without-mingle", "--without-gossip", "--loglevel=DEBUG"]
    processes = [
        CeleryProcess(kind, env=env | path, args=[*quiet, f"--hostname={name}@%h"] if kind == "worker" else [],
                      log_path=tmp_path / f"{name}-{kind}.log", cwd=tmp_path)
        for name, path in (("old", OLD), ("new", {})) for kind in ("worker", "beat")
    ]  # fmt: skip
    seen: Counter[str] = Counter()

    def answer(post):
        seen[post.postback_id] += 1
        failed = "flaky" in post.path and seen[post.postback_id] == 1
        return Answer(500 if failed else 200, delay_s=0.1)

    with Receiver(answer) as receiver:
        accounts = [f"{kind}{number}" for kind in ("good", "flaky") for number in range(5)]
        for account in accounts:
            set_account(account, url=receiver.url(f"/{account}"))
        try:
            for process in processes:
                process.start()
            for process in processes[::2]:
                process.wait_for_log(" ready.", 120)
            program = (
                "import sys; import postbacks; assert '.zip' in postbacks.__file__\n"
                f"for account in {accounts!r}: print(*postbacks.send_postbacks(account, [{EVENT!r}] * 20))"
            )
            made = subprocess.run(
                [sys.executable, "-c", program], env={**os.environ, **env, **OLD}, cwd=tmp_path,
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            ids = made.stdout.split() + [
                one for account in accounts for one in send_postbacks(account, [EVENT] * 20)
            ]
            assert len(ids) == 400
            doctor = Doctor(Scripts(broker.client()), settings.load(), pause_s=0)
            said = eventually(lambda: doctor.examine().findings("versions"), what="the doctor's word")
            assert set(said) == {SILENT, VERSION}
            eventually(lambda: broker.client().zcard(keys.DONE) == 400, what="all delivered")
            for process in processes[2:]:
                process.stop()
            silent = eventually(
                lambda: doctor.examine().findings("silent"), what="old ones alone, which give no sign"
            )
            assert set(silent) == {"worker", "beat"}
            assert judge(settings.load()).ok
        except BaseException:
            for process in processes:
                print(process.log()[-3000:])
            raise
        finally:
            for process in reversed(processes):
                process.stop()
        posts = receiver.by_id()
    for old in processes[:1]:
        assert "Traceback" not in old.log()
    for process in processes[::2]:
        assert process.log().count("postbacks.deliver[") > 0
    assert {one: len(got) for one, got in posts.items()} == {
        one: 2 if "flaky" in posts[one][0].path else 1 for one in ids
    }
    assert check_places(broker.client()) == {"done": 400}


def test_the_version_before_reads_attempts_with_phases(rig, tmp_path):
    """Leave out what that version does not know."""
    with Receiver(lambda _: Answer(500)) as receiver:
        set_account("acme", url=receiver.url())
        postback_id = send_postback.delay("acme", EVENT).id
        rig.tick()
        rig.deliver()
    assert rig.record(postback_id).attempts[0].phases is not None
    program = (
        "import sys; import postbacks; assert '.zip' in postbacks.__file__\n"
        "from postbacks.broker import client\n"
        "from postbacks.ledger.ledger import Ledger\n"
        "print(Ledger(client()).get(sys.argv[1]).attempts)"
    )
    read = subprocess.run(
        [sys.executable, "-c", program, postback_id], env=os.environ | OLD, cwd=tmp_path, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert "answered 500" in read.stdout


def test_a_worker_of_the_version_before_keeps_no_rate_and_does_the_others_no_harm(rig, tmp_path):
    """The promise of docs/upgrading.md: it sends as fast as it can, and workers after it keep the rate as if it
    had not been.
    """
    program = f"""{OLD_PARTS}postbacks.send_postbacks('paced', [{EVENT!r}] * 3)
tick()
deliver()
"""
    with Receiver() as receiver:
        set_account("paced", url=receiver.url(), rate="1/min", max_transfers=1)
        before = send_postbacks("paced", [EVENT] * 20)
        rig.tick()
        assert rig.deliver() == 1, "this version keeps the rate"
        env = {**os.environ, **OLD}
        subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, check=True, timeout=60)
        assert len(receiver.by_id()) == len(receiver.received) == len(before) + 3
        after = send_postbacks("paced", [EVENT] * 5)
        rig.tick()
        assert rig.deliver() == 0, "a minute has not passed since the POST that this version made"
        rig.advance(61)
        rig.tick()
        assert rig.deliver() == 1
        assert [rig.record(one).state for one in after] == ["delivered"] + 4 * ["waiting"]
        report = Doctor(rig.scripts, rig.settings, pause_s=0).examine()
    assert [result.sentence for result in report.wrong if result.check.name != "clock"] == []
    assert check_places(rig.client) == {"done": len(before) + 4, "waiting": 4}


def authorization(value: str):
    """Call `account set` for the header of acme."""
    return CliRunner().invoke(main, ["account", "set", "acme", "--header", f"Authorization: {value}"])


def test_an_authorization_header_is_refused_while_the_version_before_works(rig, tmp_path):
    """A loop of it, a tick of it, and a tick that one of this version has followed: nothing is changed until it is gone."""
    program = f"""{OLD_PARTS}postbacks.send_postbacks('acme', [{EVENT!r}])
deliver()
tick()
"""
    tried = threading.Event()

    def answer(_):
        tried.wait(8)
        return Answer(200)

    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()), Receiver(answer) as receiver:
        set_account("acme", url=receiver.url())
        send_postback.delay("acme", EVENT)
        rig.tick()
        before = rig.client.hget(keys.ACCOUNTS, "acme")
        with subprocess.Popen(
            [sys.executable, "-c", program], env={**os.environ, **OLD}, cwd=tmp_path
        ) as old:
            eventually(lambda: rig.client.zcard(keys.CLAIMERS), what="the old loop's claim")
            said = [authorization("Bearer x")]
            tried.set()
            assert old.wait(60) == 0
        said.append(authorization("Bearer x"))
        rig.tick()
        said.append(authorization("Bearer x"))
        assert [shown.exit_code for shown in said] == [2, 2, 2]
        assert [f"{SILENT} {work})" in shown.stderr for shown, work in zip(said, ("delivers", "ticks", "ticks"), strict=True)] == [True] * 3, said  # fmt: skip
        assert rig.client.hget(keys.ACCOUNTS, "acme") == before
        assert authorization("").exit_code == 0, "it may always be taken off"
        rig.client.hset(
            keys.TICKS, SILENT, int(rig.client.hget(keys.TICKS, SILENT)) - 61_000
        )  # a minute has passed
        assert authorization("Bearer x").exit_code == 0
        one = send_postback.delay("acme", EVENT).id
        rig.tick()
        rig.deliver()
        assert receiver.by_id()[one][0].headers["authorization"] == "Bearer x"


def test_the_version_before_reads_an_account_with_an_authorization_header_and_sends_without_it(rig, tmp_path):
    """The promise of docs/upgrading.md for a worker that is started again: no event is skipped."""
    program = f"""{OLD_PARTS}postbacks.send_postbacks('acme', [{EVENT!r}])
tick()
deliver()
"""
    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()), Receiver() as receiver:
        set_account(
            "acme", url=receiver.url(), authorization=secrets.encrypt("Bearer x", "acme", "authorization")
        )
        env = {**os.environ, **OLD}
        subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, check=True, timeout=60)
        assert ["authorization" in post.headers for post in receiver.received] == [False]


def account(*words: str):
    """Call `postbacks account`."""
    return CliRunner().invoke(main, ["account", *words])


def test_a_move_and_a_removal_are_refused_while_the_version_before_would_send_with_other_credentials(
    rig, tmp_path
):
    """The old worker sends to the URL in the record, with what the account has by then, or nothing; so nothing is
    changed.
    """
    program = f"""{OLD_PARTS}import sys
tick()
for line in sys.stdin: print(deliver() or "delivered", flush=True)
"""
    with Receiver() as old_host, Receiver() as new_host:
        set_account("keyed", url=old_host.url("/keyed"), headers={"X-Api-Key": "first"})
        set_account("plain", url=old_host.url("/plain"))
        ids = [*send_postbacks("keyed", [EVENT]), *send_postbacks("plain", [EVENT])]
        rig.tick()
        rows = rig.client.hgetall(keys.ACCOUNTS)
        with subprocess.Popen(
            [sys.executable, "-c", program], env={**os.environ, **OLD}, cwd=tmp_path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as old:  # fmt: skip
            eventually(
                lambda: int(rig.client.get(keys.LAST_TICK) or 0) > int(rig.client.hget(keys.TICKS, VERSION)),
            )
            move = ("set", "keyed", "--url", new_host.url("/keyed"), "--header", "X-Api-Key: second")
            for words in (move, ("remove", "keyed", "--yes")):
                refused = account(*words)
                assert (refused.exit_code, f"({SILENT} ticks)" in refused.stderr) == (2, True), refused.output
            assert rig.client.hgetall(keys.ACCOUNTS) == rows
            assert account("set", "keyed", "--url", old_host.url("/other")).exit_code == 0, "the same host"
            assert account("set", "plain", "--url", new_host.url("/plain")).exit_code == 0, "no credentials"
            old.stdin.write("deliver\n")
            old.stdin.flush()
            assert old.stdout.readline() == "delivered\n"
            old.stdin.close()
            assert old.wait(60) == 0
        # what docs/upgrading.md says: the version before sends to the URL in the record
        assert {post.path for post in old_host.received} == {"/keyed", "/plain"}
        assert new_host.received == []
        assert {rig.record(postback_id).state for postback_id in ids} == {"delivered"}
        rig.tick()
        rig.client.hset(keys.TICKS, SILENT, int(rig.client.hget(keys.TICKS, SILENT)) - 61_000)
        assert account(*move).exit_code == 0
        assert account("remove", "keyed", "--yes").exit_code == 0
    assert check_places(rig.client) == {"done": 2}


def test_a_tick_of_the_version_before_still_skips_unknown_accounts_and_drops_a_second_message_of_an_id(
    rig, tmp_path
):
    """The promise of docs/upgrading.md; a skipped postback is sent again by its id, and follows its account."""
    send_postback.apply_async(("later", EVENT), task_id="skipped")
    send_postback.apply_async(("later", EVENT), task_id="taken")
    send_postback.apply_async(("other", EVENT), task_id="taken")
    env = {**os.environ, **OLD}
    subprocess.run(
        [sys.executable, "-c", f"{OLD_PARTS}tick()"], env=env, cwd=tmp_path, check=True, timeout=60
    )
    assert {rig.record(one).state for one in ("skipped", "taken")} == {"skipped"}
    assert (rig.record("taken").account, rig.client.zcard(keys.DONE)) == ("later", 2)
    with Receiver() as receiver:
        set_account("later", url=receiver.url("/later"))
        assert resend("skipped") == "waiting"
        rig.deliver()
        assert [post.path for post in receiver.received] == ["/later"]


def test_nothing_is_sealed_while_the_version_before_works(rig, tmp_path):
    """The old worker could not open a seal, and would put the account off: a secret, a client key, all of them anew."""
    cert, key = authority().write(tmp_path, "client")
    env = {**os.environ, **OLD}
    commands = [
        ("account", "secret", "rotate", "acme"),
        ("account", "set", "acme", "--client-cert", str(cert), "--client-key", str(key)),
        ("account", "secret", "reseal"),
    ]
    with environment(POSTBACKS_SECRET_KEY=secrets.new_key()):
        set_account("acme", url="http://127.0.0.1:9999/")
        before = rig.client.hget(keys.ACCOUNTS, "acme")
        subprocess.run(
            [sys.executable, "-c", f"{OLD_PARTS}tick()"], env=env, cwd=tmp_path, check=True, timeout=60
        )
        for command in commands:
            shown = CliRunner().invoke(main, command)
            assert (shown.exit_code, shown.stdout) == (2, "")
            assert f"{SILENT} ticks) and would not open " in shown.stderr
        assert rig.client.hget(keys.ACCOUNTS, "acme") == before
        rig.tick()
        rig.client.hset(keys.TICKS, SILENT, int(rig.client.hget(keys.TICKS, SILENT)) - 61_000)
        for command in commands:
            assert CliRunner().invoke(main, command).exit_code == 0


def test_the_version_before_reads_a_row_of_this_one_and_keeps_what_it_cannot_sign(rig, tmp_path):
    """The promise of docs/upgrading.md for one that is started again: it sends for an account whose seals are its
    own, and neither unsigned nor with garbage for one whose seals are bound.
    """
    program = f"""{OLD_PARTS}
for account in ("signed", "bound", "mutual"): postbacks.send_postbacks(account, [{EVENT!r}])
tick()
deliver()
"""
    key = secrets.new_key()
    secret = secrets.new_secret()
    with environment(POSTBACKS_SECRET_KEY=key), Receiver() as receiver:
        old_seal = "sealed:" + Fernet(key).encrypt(secret.encode()).decode()
        bound = {name: secrets.encrypt(secret, name, "secret") for name in ("bound", "mutual")}
        set_account("signed", url=receiver.url("/signed"), off={"MMS_MT"}, secrets=({"value": old_seal},))
        set_account("bound", url=receiver.url("/bound"), secrets=({"value": bound["bound"]},))
        set_account("mutual", url=receiver.url("/mutual"), client_cert="pem", client_key=bound["mutual"])
        env = {**os.environ, **OLD}
        subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, check=True, timeout=60)
        assert [post.path for post in receiver.received] == ["/signed"]
        assert "webhook-signature" in receiver.received[0].headers
        rig.advance(31)
        set_account("mutual", url=receiver.url("/mutual"))
        for _ in range(2):
            rig.tick()
            rig.deliver()
        signed = {post.path: "webhook-signature" in post.headers for post in receiver.received}
        assert signed == {"/signed": True, "/bound": True, "/mutual": False}


def test_a_message_of_a_newer_version_is_kept_until_a_newer_worker_reads_it(rig, monkeypatch):
    """An old worker may take it in first: dead with that reason, whole; `postbacks resend` gives it back to the queue."""
    with Receiver() as receiver:
        set_account("acme", url=receiver.url())
        monkeypatch.setattr("postbacks.client.task.SCHEMA", SCHEMA + 1)
        # with an option the message is made anew, and not from the template of calls before
        one = send_postback.apply_async(("acme", EVENT), priority=0).id
        (raw,) = rig.client.lrange(keys.QUEUE, 0, -1)
        assert json.loads(raw)["headers"][SCHEMA_HEADER] == SCHEMA + 1
        rig.tick()
        kept = rig.record(one)
        assert (kept.state, kept.raw) == ("dead", raw)
        assert kept.reason.startswith(f"{NEWER}: the message is of schema {SCHEMA + 1}")
        assert resend(one) == "queued"
        monkeypatch.setattr("postbacks.queue.message.SCHEMA", SCHEMA + 1)  # the worker is upgraded
        rig.tick()
        rig.deliver()
        assert rig.record(one).state == "delivered"
        assert list(receiver.by_id()) == [one]
    assert check_places(rig.client) == {"done": 1}
    assert int(rig.client.get(keys.LEDGER_BYTES)) == int(rig.client.hget(keys.record(one), "bytes"))
