"""``postbacks doctor``: what it prints, its exit codes, and real processes that it finds healthy."""

from __future__ import annotations

import json
import threading

import pytest
from damage import lose_parked
from events import MT
from helpers import eventually, running, set_account
from ward import call, message

from postbacks import keys, send_postback, send_postbacks
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.doctor import CHECKS, audit
from postbacks.doctor import doctor as rounds


def test_a_healthy_running_system_is_clean_while_it_works(broker, tmp_path, monkeypatch):
    """Real processes, postbacks on their way, failures among them: nothing to say, exit code 0."""
    monkeypatch.setattr(rounds, "PAUSE_S", 2.5)
    with Receiver(
        lambda post: Answer(500 if post.postback_id[-1] in "0123" else 200, delay_s=0.02)
    ) as receiver:
        for number in range(10):
            set_account(f"a{number}", url=receiver.url())
        with running(broker, tmp_path):
            eventually(lambda: broker.client().exists(keys.LAST_TICK), what="the first tick")
            stop = threading.Event()

            def send():
                while not stop.wait(0.2):
                    for number in range(10):
                        send_postbacks(f"a{number}", [MT] * 2)

            sender = threading.Thread(target=send)
            sender.start()
            try:
                receiver.wait_for(50, 90)
                for _ in range(2):
                    shown = call("--ping", "--json")
                    lines = [json.loads(line) for line in shown.stdout.splitlines()]
                    assert [line for line in lines if line["level"] == "wrong"] == []
                    assert shown.exit_code == 0
                shown = call("--fix", "--json")
                assert "fixed" not in json.loads(shown.stdout.splitlines()[0])
            finally:
                stop.set()
                sender.join()


def test_on_an_empty_database_it_says_what_to_start(broker):
    del broker
    shown = call()
    assert shown.exit_code == 1
    text = " ".join(shown.stdout.split())
    assert "no tick has ever finished" in text
    assert "no worker has been heard of" in text
    assert "no beat has been heard of" in text
    assert "3 wrong" in text


def test_when_workers_are_missing_it_says_so(broker):
    with broker.client() as client:
        client.lpush(keys.WORK_QUEUE, message("postbacks.dispatch"))
    send_postback.delay("acme", MT)
    text = " ".join(call().stdout.split())
    assert "1 wait in postbacks.work and no worker takes them; 1 postback waits to be taken in" in text


def test_a_ping_that_nobody_answers_is_wrong(broker):
    del broker
    shown = call("--ping", "--json")
    assert "no worker answered the ping" in shown.stdout


def test_a_wrong_database_is_guessed(broker):
    with broker.client() as client:
        client.set("shop:cart", "1")
    shown = call(url=broker.url.replace("/0", "/5"))
    assert "There are keys in db0" in " ".join(shown.stdout.split())


def test_json_is_one_object_a_check_and_the_exit_code_says_the_worst(ward):
    """And with --fix, what was done; a second run is clean."""
    assert call("--json").exit_code == 0
    lose_parked(ward)
    shown = call("--json")
    assert shown.exit_code == 1
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["check"] for line in lines] == [check.name for check in CHECKS]
    (found,) = [line for line in lines if line["level"] == "wrong"]
    assert set(found) == {"check", "level", "says", "do", "fixable", "count", "found"}
    assert (found["check"], found["fixable"], found["count"]) == (audit.NO_PLACE, True, 1)
    shown = call("--fix")
    assert shown.exit_code == 0
    assert f"{ward.parked}" in shown.stdout
    assert "FIXED  no-place" in shown.stdout
    shown = call("--fix")
    assert shown.exit_code == 0
    assert "nothing had to be repaired" in shown.stdout.lower()


@pytest.mark.parametrize("args", [(), ("--fix",), ("--json",)])
def test_a_broker_that_is_down_is_2_and_one_sentence(args):
    with dead_port() as port:
        shown = call(*args, url=f"redis://127.0.0.1:{port}/0")
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert "does not answer" in shown.stderr


def test_wrong_use_is_2():
    assert call("--within", "nan").exit_code == 2
