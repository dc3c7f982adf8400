"""Only status 200 is success: every other answer, and every broken one, is a failed attempt."""

from __future__ import annotations

import re
from pathlib import Path

import pycurl
import pytest
from events import EVENT
from helpers import ended, running, set_account, short_and_long
from transfers import judged

from postbacks import send_postback
from postbacks.devtools.receiver import Answer, Received, Receiver, dead_port
from postbacks.transport import outcomes
from postbacks.transport.outcomes import classify_status

FAILURES = {
    "201": (Answer(201), "status"),
    "204": (Answer(204, b""), "status"),
    "301": (Answer(301, headers={"Location": "/200"}), "status"),
    "302": (Answer(302, headers={"Location": "/200"}), "status"),
    "404": (Answer(404), "status"),
    "500": (Answer(500), "status"),
    "empty": (Answer(action="close"), "broken_answer"),
    "reset": (Answer(action="reset"), "broken_answer"),
    "garbage": (Answer(action="garbage"), "broken_answer"),
    "late": (Answer(delay_s=3), "answer_timeout"),
}


@pytest.mark.parametrize("pool", short_and_long("threads", "prefork"))
def test_only_200_is_success_and_everything_else_is_sent_again(broker, tmp_path, pool):
    """Each failing answer comes once, then 200; the ledger names the failure, the resend is delivered."""

    def answer(post: Received) -> Answer:
        kind = post.path.strip("/")
        return (
            FAILURES[kind][0] if kind in FAILURES and post.attempt == 1 else Answer(200, b"<any>body</any>")
        )

    env = {"POSTBACKS_RETRY_COUNTDOWN_S": "0.2", "POSTBACKS_ANSWER_TIMEOUT_S": "1"}
    with dead_port() as port, Receiver(answer) as receiver, running(broker, tmp_path, pool=pool, env=env):
        results = {}
        for kind in (*FAILURES, "200"):
            set_account(f"to-{kind}", url=receiver.url(f"/{kind}"))
            results[kind] = send_postback.delay(f"to-{kind}", EVENT)
        set_account("to-refused", url=f"http://127.0.0.1:{port}/")
        refused = send_postback.delay("to-refused", EVENT)
        records = {kind: ended(broker.client(), result.id) for kind, result in results.items()}
        dead = ended(broker.client(), refused.id)
    outcomes = {kind: [attempt.outcome for attempt in record.attempts] for kind, record in records.items()}
    assert outcomes == {kind: [outcome, "delivered"] for kind, (_, outcome) in FAILURES.items()} | {
        "200": ["delivered"]
    }
    statuses = {kind: records[kind].attempts[0].status for kind in ("201", "204", "301", "302", "404", "500")}
    assert statuses == {kind: int(kind) for kind in statuses}
    assert dead.state == "dead"
    assert [attempt.outcome for attempt in dead.attempts] == ["refused"] * 6


def test_a_redirect_is_not_followed(broker, tmp_path):
    """The Location of a 302 gets nothing."""
    env = {"POSTBACKS_MAX_RESENDS": "0"}
    with Receiver(
        lambda post: Answer(302, headers={"Location": "/there"}) if post.path == "/here" else Answer()
    ) as r:
        with running(broker, tmp_path, env=env):
            set_account("acme", url=r.url("/here"))
            assert ended(broker.client(), send_postback.delay("acme", EVENT).id).state == "dead"
        assert [post.path for post in r.received] == ["/here"]


@pytest.mark.parametrize("status", range(100, 600))
def test_only_200_is_success(status):
    """201, 204, every redirect, every error: failures."""
    assert (classify_status(status) == "delivered") is (status == 200)
    outcome = judged(status=status, header_s=1.0, connected_s=1.0)
    assert outcome.delivered is (status == 200)
    assert outcome.name == ("delivered" if status == 200 else "status")
    assert outcome.status == status


def test_once_the_header_has_come_whole_its_status_decides_whatever_the_body_did():
    """A body that breaks off, is too long or too late changes nothing."""
    for code in (0, pycurl.E_PARTIAL_FILE, pycurl.E_OPERATION_TIMEDOUT, pycurl.E_WRITE_ERROR):
        assert judged(code, status=200, header_s=1.0, connected_s=1.0).delivered
        assert judged(code, status=503, header_s=1.0, connected_s=1.0).name == "status"


def test_a_status_alone_is_no_answer():
    """The status line came, the header did not end: no success, even with 200."""
    assert not judged(pycurl.E_RECV_ERROR, status=200, connected_s=1.0).delivered


def test_200_stands_in_one_place():
    """Whoever asks where "only 200" is finds classify_status."""
    source = Path(outcomes.__file__).read_text()
    assert len(re.findall(r"== 200\b", source)) == 1
