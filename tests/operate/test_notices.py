"""Notices on their way: stored first, signed, sent until they arrive, and never lost with their process."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
from events import MT
from helpers import set_account
from operate.incident_world import IncidentWorld
from recording import end_lease
from standardwebhooks import Webhook

from postbacks import send_postback
from postbacks.devtools.receiver import Answer, Receiver, dead_port
from postbacks.operate.incidents.conditions import Condition
from postbacks.operate.incidents.webhook import reaching_anywhere
from postbacks.settings import Settings

pytestmark = pytest.mark.usefixtures("forked")

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBub3RpY2Vz"
#: No address of our own, unlike the suite's setting: a notice's URL may have one all the same.
NOWHERE = ()


def fault(subject: str = "a", **more: object) -> Condition:
    """Condition that a source gives."""
    return Condition(
        kind="fault", subject=subject, title=f"{subject} fails", sentence="so it is", advice="", **more
    )


@pytest.fixture
def world_of(broker, tmp_path, monkeypatch):
    """Maker of a system with a webhook, whose finder finds one fault."""
    made = []

    def make(url: str, **changes: object) -> IncidentWorld:
        world = IncidentWorld(
            broker,
            f"sqlite:///{tmp_path}/history.db",
            monkeypatch,
            notice_url=url,
            allowed_networks=NOWHERE,
            **changes,
        )
        world.finder._sources = {"fault": lambda _: [fault()]}
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


def test_a_notice_is_signed_as_a_postback_is_and_says_the_same_as_what_is_stored(world_of):
    from pydantic import SecretStr

    with Receiver() as hook:
        world = world_of(hook.url("/hook"), notice_secret=SecretStr(SECRET))
        world.look()
        world.send()
        (received,) = hook.received
    (notice,) = world.notices()
    assert (notice.state, notice.attempts) == ("sent", 1)
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == notice.notice_id
    verified = Webhook(SECRET).verify(received.body.decode(), dict(received.headers))
    assert verified == json.loads(notice.body)
    assert verified["data"]["notice"] == notice.notice_id


def test_a_webhook_that_fails_gets_the_same_notice_again_and_any_2xx_is_an_answer(world_of, caplog):
    """After 5 s, 10 s, 20 s; the log says it once."""
    caplog.set_level(logging.WARNING, "postbacks.operate")
    answers = iter([Answer(500), Answer(302), Answer(503), Answer(204)])
    with Receiver(lambda _: next(answers)) as hook:
        world = world_of(hook.url())
        world.look()
        for seconds in (0, 4, 1.1, 10.1, 20.1, 1000):
            world.advance(seconds)
            world.send()
        posts = hook.received
    assert [len({post.headers["webhook-id"] for post in posts}), len(posts)] == [1, 4]
    assert [(notice.state, notice.attempts) for notice in world.notices()] == [("sent", 4)]
    failed = [record for record in caplog.records if record.event == "notice.failed"]
    assert len(failed) == 1
    assert "answered 500. It is sent again for a day" in failed[0].detail


def test_a_notice_that_does_not_arrive_for_a_day_is_given_up_and_the_log_says_so(world_of, caplog):
    caplog.set_level(logging.WARNING, "postbacks.operate")
    with dead_port() as port:
        world = world_of(f"http://user:secret-word@127.0.0.1:{port}/hook?token=secret-word")
        world.look()
        for _ in range(25):
            world.advance(3600)
            world.send()
    (notice,) = world.notices()
    assert notice.state == "given_up"
    assert notice.attempts == 24
    (line,) = [record for record in caplog.records if record.event == "notice.given_up"]
    assert line.incident == notice.incident
    assert "did not arrive for a day: the connection was refused" in line.detail
    assert "secret-word" not in caplog.text


def test_the_operators_own_network_may_have_the_webhook_and_what_is_denied_stays_denied(broker):
    settings = Settings(allowed_networks="", denied_networks="10.0.0.0/8")
    anywhere = reaching_anywhere(settings)
    assert settings.allowed_networks == ()
    from postbacks.guard import refusal

    assert refusal("127.0.0.1", 9093, settings)
    assert refusal("127.0.0.1", 9093, anywhere) is None
    assert refusal("10.1.2.3", 443, anywhere) == "10.1.2.3: denied by POSTBACKS_DENIED_NETWORKS (10.0.0.0/8)"


def test_without_a_webhook_a_notice_is_in_the_log_alone_and_is_not_sent_later(world_of, caplog):
    caplog.set_level(logging.WARNING, "postbacks.operate")
    world = world_of("")
    world.look()
    assert [record.event for record in caplog.records if record.name.startswith("postbacks.operate")] == [
        "incident.opened"
    ]
    assert [notice.state for notice in world.notices()] == ["log_alone"]


KILLED = """
import sys
from postbacks import killpoints
from postbacks.broker.client import client
from postbacks.history.recorder import Recorder
from postbacks.logs import write_to_stderr
from postbacks.operate.incidents.finder import Finder
from postbacks.operate.incidents.webhook import NoticeSender
from postbacks.settings import load

write_to_stderr("text")
recorder = Recorder(client(), load())
while not recorder.works:
    recorder.turn()
killpoints.arm(sys.argv[1])
Finder(recorder, client(), load(), clock_offset_ms=int(sys.argv[2])).turn()
NoticeSender(recorder, client(), load(), clock_offset_ms=int(sys.argv[2])).turn()
"""


@pytest.mark.parametrize(
    ("point", "logged", "posts"), [("after:notice-store", 0, 1), ("after:notice-post", 1, 2)]
)
def test_a_death_between_storing_and_telling_loses_no_notice(
    broker, tmp_path, monkeypatch, caplog, point, logged, posts
):
    """The next process writes the line and sends it; a POST that was not noted goes out twice, with one id."""
    caplog.set_level(logging.WARNING, "postbacks.operate")
    url = f"sqlite:///{tmp_path}/history.db"
    with Receiver(lambda post: Answer(200 if post.path == "/hook" else 503)) as receiver:
        world = IncidentWorld(broker, url, monkeypatch, notice_url=receiver.url("/hook"))
        set_account("acme", url=receiver.url("/"))
        send_postback.delay("acme", MT)
        world.work()
        world.advance(301)
        world.rig.tick()
        offset_ms = str(world.rig.scripts.clock_offset_ms)
        world.recorder.close()
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, point, offset_ms],
            env={**os.environ, "POSTBACKS_HISTORY_URL": url, "POSTBACKS_NOTICE_URL": receiver.url("/hook")},
            timeout=90, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert killed.stderr.count("incident.opened") == logged
        end_lease(world.rig.client)
        world.rig.close()
        world = IncidentWorld(broker, url, monkeypatch, notice_url=receiver.url("/hook"))
        world.advance(int(offset_ms) / 1000)
        world.look()
        world.send()
        hooked = [post for post in receiver.received if post.path == "/hook"]
        (notice,) = world.notices()
        world.close()
    assert len(hooked) == posts
    assert {post.headers["webhook-id"] for post in hooked} == {notice.notice_id}
    assert (notice.state, notice.change, notice.is_logged) == ("sent", "opened", True)
    assert (
        sum(record.event == "incident.opened" for record in caplog.records if hasattr(record, "event"))
        == 1 - logged
    )
