"""Jobs driven in this process: tick, delivering loop, recorder and mover in turns."""

from __future__ import annotations

from collections.abc import Iterable

from events import MT
from helpers import Rig, check_places, set_account
from recording import make_recorder, settle

from postbacks import keys, send_postback, send_postbacks, settings
from postbacks.devtools.receiver import Receiver
from postbacks.doctor import audit
from postbacks.operate.jobs.job import ASKED, RUNNING, Job
from postbacks.operate.jobs.mover import Mover
from postbacks.operate.jobs.status import read


class World:
    """System on the suite's broker, and what a test does with it.

    Attributes:
        answers: path of a POST -> the status that the receiver answers; 200 without an entry.
        body: of what a test's receiver answers, where the test gives it this one.
    """

    def __init__(self, rig: Rig, url: str, receiver: Receiver) -> None:
        settings.load.cache_clear()
        self.rig, self.client, self.receiver = rig, rig.client, receiver
        self.settings = rig.settings = settings.load()
        self.answers: dict[str, int] = {}
        self.body = b"oops"
        self._seen = 0
        self.recorder = make_recorder(rig.client, url)
        self.record()
        self.mover = Mover(self.recorder, rig.client, self.settings)

    def close(self) -> None:
        """Release what it holds."""
        self.recorder.close()
        settings.load.cache_clear()

    def account(self, name: str) -> None:
        """Set an account that goes to a path of its own."""
        set_account(name, url=self.receiver.url(f"/{name}"))

    def record(self) -> None:
        """Copy all that has changed into the history."""
        settle(self.recorder, self.client)

    def dead(self, account: str, count: int, *, recorded: bool = True) -> list[str]:
        """Let postbacks of an account die of their only POST."""
        self.account(account)
        before, self.answers[f"/{account}"] = self.answers.get(f"/{account}", 200), 503
        postback_ids = [send_postback.delay(account, MT | {"TRACKINGID": str(n)}).id for n in range(count)]
        self.rig.tick()
        while self.rig.deliver():
            pass
        self.answers[f"/{account}"] = before
        assert {self.state(postback_id) for postback_id in postback_ids} <= {"dead"}
        if recorded:
            self.record()
        return postback_ids

    def unrouted(self, account: str, count: int) -> list[str]:
        """Let postbacks die without a POST, as nobody knows their account; then set it."""
        postback_ids = send_postbacks(account, [MT | {"TRACKINGID": str(n)} for n in range(count)])
        self.rig.tick()
        self.record()
        self.account(account)
        return postback_ids

    def leave(self, postback_ids: Iterable[str]) -> None:
        """Let dead postbacks leave the broker, and the history read that."""
        postback_ids = list(postback_ids)
        assert self.rig.scripts.drop(2**53, "", postback_ids) == len(postback_ids)
        self.record()

    def state(self, postback_id: str) -> str:
        """State of a postback; empty where the broker has none."""
        state = self.client.hget(keys.record(postback_id), "state")
        return (state or b"").decode()

    def turn(self) -> None:
        """Let recorder and mover have a turn each."""
        self.recorder.turn()
        self.mover.scripts.clock_offset_ms = self.rig.scripts.clock_offset_ms
        self.mover.turn()

    def freeze(self, job: Job) -> Job:
        """Let the mover have turns until a job is not asked for any more."""
        for _ in range(500):
            if (now := read(job.id)).state != ASKED:
                return now
            self.turn()
        raise AssertionError(f"the job was not frozen: {read(job.id)}")

    def run(self, job: Job, *, turns: int = 300) -> Job:
        """Move and deliver until a job runs no more."""
        for _ in range(turns):
            now = read(job.id)
            if now.state not in {ASKED, RUNNING}:
                return now
            self.turn()
            self.rig.deliver()
        raise AssertionError(f"the job goes on: {read(job.id)}")

    def posts(self, account: str) -> list[str]:
        """Ids that were POSTed to an account since ``forget_posts``, in order."""
        posts = self.receiver.received[self._seen :]
        return [post.postback_id for post in posts if post.path == f"/{account}"]

    def forget_posts(self) -> None:
        """Let ``posts`` begin here."""
        self._seen = len(self.receiver.received)

    def check(self) -> None:
        """Check that each postback has one place, and that the doctor finds nothing wrong."""
        check_places(self.client)
        faults = audit.run(self.rig.scripts, 60).faults
        assert {name: found for name, found in faults.items() if found} == {}
