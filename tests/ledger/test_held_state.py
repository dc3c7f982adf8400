"""A postback that a loop holds is told as held, whatever it has been through; from its POST's begin on it is being sent."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from events import EVENT
from helpers import Rig, claim, set_account

from postbacks import keys, resend, send_postback, send_postbacks
from postbacks.cli import main
from postbacks.ledger.record import Attempt
from postbacks.queue.rows import AttemptRow

LANE = "acme/general"
URL = "http://127.0.0.1:8080/"


@pytest.fixture
def held(rig: Rig) -> str:
    """The second of two postbacks of a lane that fails; the loop ``one`` tries the first and holds it."""
    set_account("acme", url=URL)
    _, held = send_postbacks("acme", [EVENT] * 2)
    rig.tick()
    hold(rig)
    return held


def hold(rig: Rig, token: str = "one") -> None:
    """Let the lane fail, and claim from it."""
    rig.client.hset(f"{keys.LANE_STATE}{LANE}", "failing", 1)
    claim(rig, token)


def claims_of(rig: Rig, token: str, how: str) -> list[str]:
    """Return what a loop has: ``0`` is only held, of ``1`` a POST may have begun."""
    claims = rig.client.hgetall(keys.claims(token))
    return sorted(postback_id.decode() for postback_id, value in claims.items() if value.decode() == how)


def states_of(postback_id: str) -> tuple[str, str, str]:
    """The state that Celery, its info (where that is no error) and ``show --json`` tell."""
    result = send_postback.AsyncResult(postback_id)
    shown = json.loads(CliRunner().invoke(main, ["show", postback_id, "--json"]).stdout)
    info = result.info["state"] if isinstance(result.info, dict) else str(result.info).rpartition("; ")[2]
    return result.state, info, shown["state"]


def note(rig: Rig, postback_id: str, number: int, outcome: str, mood: str, token: str = "one") -> None:
    """Note an attempt that has failed, to be sent again at once."""
    attempt = Attempt(number, 1, outcome).to_json()
    row = AttemptRow(postback_id, LANE, "parked", number, attempt, 0, mood, outcome)
    rig.scripts.commit(token, 30_000, 10, 60, [row])


PENDING = ("PENDING", "held", "held")
SENDING = ("STARTED", "sending", "sending")
AGAIN = ("RETRY", "it is sent again now", "held")


def test_it_is_held_until_its_post_begins(rig, held):
    """No attempt is counted of it; the one that is tried is being sent. Celery says PENDING and STARTED."""
    assert states_of(held) == PENDING
    (first,) = claims_of(rig, "one", "1")
    assert states_of(first) == SENDING
    assert rig.client.hget(keys.record(held), "state") == b"sending", "as 0.1.0 writes and reads it"
    rig.scripts.renew("one", 30_000)
    assert states_of(held) == PENDING
    for _ in range(2):  # asked again, as its answer was lost
        assert len(rig.scripts.begin("one", [held]).rows) == 1
        assert states_of(held) == SENDING


def test_after_a_failure_it_is_held_again(rig, held):
    """The first attempt has its note, and Celery says RETRY as of one that waits for its turn after a failure."""
    note(rig, held, 1, "connect_timeout", "shared")
    (first,) = claims_of(rig, "one", "1")
    note(rig, first, 1, "status", "failed")
    assert [states_of(postback_id)[::2] for postback_id in (first, held)] == [("RETRY", "parked")] * 2
    rig.advance(2)
    hold(rig, "two")
    (again,) = claims_of(rig, "two", "0")
    assert states_of(again) == AGAIN
    rig.scripts.begin("two", [again])
    assert states_of(again) == SENDING


def test_what_is_given_back_waits_and_what_is_put_off_is_held_again(rig, held):
    """An attempt that was counted and not made is taken back."""
    rig.scripts.give_back("one", [held])
    assert states_of(held) == ("PENDING", "waiting", "waiting")
    (first,) = claims_of(rig, "one", "1")
    rig.scripts.postpone("one", 0, "account_changed", [first])
    assert states_of(first)[::2] == ("PENDING", "parked")
    rig.advance(1)
    hold(rig, "two")
    assert claims_of(rig, "two", "0") == [first]
    assert states_of(first) == PENDING


def test_one_whose_loop_died_is_held_again(rig, held):
    """A POST that was open stands as unknown, and the postback fails in the quarantine; what was only held has no attempt."""
    (first,) = claims_of(rig, "one", "1")
    rig.advance(31)
    rig.tick()
    assert [states_of(postback_id)[::2] for postback_id in (first, held)] == [("PENDING", "waiting")] * 2
    assert [attempt.outcome for attempt in rig.record(first).attempts] == ["unknown"]
    _, (row,), _ = rig.scripts.examine("examiner", 30_000)
    assert (row.id.decode(), states_of(first)) == (first, SENDING)
    note(rig, first, 2, "status", "failed", "examiner")
    rig.advance(1)
    hold(rig, "two")
    assert claims_of(rig, "two", "1") == [held], "it was put back to the front of its lane"
    assert states_of(held) == SENDING
    assert states_of(first) == AGAIN


def test_one_that_was_sent_again_by_hand_is_held_with_its_attempts(rig, held):
    """They stay in the ledger, and the next one has the next number."""
    (first,) = claims_of(rig, "one", "1")
    rig.scripts.give_back("one", [held])
    attempt = Attempt(1, 1, "status").to_json()
    row = AttemptRow(first, LANE, "dead", 1, attempt, 0, "failed", "status")
    rig.scripts.commit("one", 30_000, 10, 60, [row])
    assert resend(first) == "waiting"
    hold(rig, "two")
    assert (claims_of(rig, "two", "1"), claims_of(rig, "two", "0")) == ([held], [first])
    assert states_of(first) == ("PENDING", "held", "held")
    assert len(rig.record(first).attempts) == 1


def test_a_held_one_that_is_cancelled_is_never_sent(rig, held):
    """The command says so, and its state follows as soon as the loop would send it or gives it back."""
    done = CliRunner().invoke(main, ["cancel", held])
    assert (done.exit_code, "is held by a worker, which does not send it any more" in done.output) == (
        0,
        True,
    )
    (first,) = claims_of(rig, "one", "1")
    done = CliRunner().invoke(main, ["cancel", first])
    assert (done.exit_code, "is being sent at this moment" in done.output) == (1, True)
    assert rig.scripts.begin("one", [held]).rows == []
    assert states_of(held)[::2] == ("REVOKED", "cancelled")
