"""``postbacks forget``: it counts, asks, waits, and prints the receipt."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from events import example
from forget_world import HERS, MINE, NUMBER, SPELLINGS, call
from helpers import set_account
from recording import end_lease
from traces import texts_of

from postbacks import send_postback
from postbacks.catalogue import event_type
from postbacks.operate.forget import Receipt, forget
from postbacks.operate.forget.request import Requests

EMAIL = example(event_type("EMAIL_SUB", "N304")) | {"EMAIL": "ann@example.com"}


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
    assert "Is it the whole number, with its country's code?" in none
    assert "Is it the whole address?" in call("forget", "--email", "no@b.example", "--dry-run").stderr
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
