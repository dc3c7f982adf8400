"""However a worker is told to end, what is open is finished, the rest goes back, and no attempt is counted."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import check_places, eventually
from stop_scenarios import BAD, GOOD, SOFT, Answers, World, children, fill, flight, make, posts_of

from postbacks import keys
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Received, Receiver

pytestmark = pytest.mark.usefixtures("forked")

OPEN_S = 4.0


@dataclass(frozen=True)
class Case:
    """Way to end one worker."""

    pool: str
    signal: signal.Signals
    group: bool
    config: str = ""
    remap: str = ""


CASES = {
    "threads, SIGTERM to all": Case("threads", signal.SIGTERM, True),
    "threads, soft": Case("threads", signal.SIGQUIT, False, SOFT),
    "prefork, SIGTERM": Case("prefork", signal.SIGTERM, False),
    "prefork, SIGTERM to all": Case("prefork", signal.SIGTERM, True),
    "prefork, soft": Case("prefork", signal.SIGQUIT, False, SOFT),
    "prefork, soft to all, remapped": Case("prefork", signal.SIGTERM, True, SOFT, "SIGQUIT"),
}
COLD = {
    "threads, cold": Case("threads", signal.SIGQUIT, False),
    "prefork, cold to all": Case("prefork", signal.SIGQUIT, True),
}
LEASE = {"POSTBACKS_CLAIM_LEASE_S": "3", "POSTBACKS_INTAKE_LEASE_S": "2"}


@dataclass
class End:
    """End of a worker: its exit code, and what the receiver had got by then."""

    world: World
    code: int
    posts: dict[str, list[Received]]


@contextmanager
def ended(folder: Path) -> Iterator[dict[str, End]]:
    """All cases side by side, each worker on a database of its own: it is told once it has POSTs in flight."""
    cases = CASES | COLD
    with EmbeddedBroker() as broker, Receiver(Answers(OPEN_S)) as receiver:
        worlds = start(broker, receiver, folder, cases)
        try:
            for name, world in worlds.items():
                # One after the other: what is in flight stays so for a few seconds alone.
                world.wake(2)
                eventually(lambda world=world: flight(world, receiver), what=f"POSTs of {name}")
                case = cases[name]
                send = os.killpg if case.group else os.kill
                send(world.group if case.group else world.worker.pid, case.signal)
            yield {
                name: End(world, world.worker.wait(90), posts_of(world, receiver))
                for name, world in worlds.items()
            }
        finally:
            for world in worlds.values():
                print(f"--- {world.name}\n{world.worker.log()[-4000:]}")
                world.worker.kill(group=True)


def start(
    broker: EmbeddedBroker, receiver: Receiver, folder: Path, cases: dict[str, Case]
) -> dict[str, World]:
    """A worker a case, each with ten postbacks of six accounts, and ready."""
    worlds = {}
    for number, (name, case) in enumerate(cases.items(), 1):
        env = LEASE | ({"REMAP_SIGTERM": case.remap} if case.remap else {})
        worlds[name] = make(broker, number, f"w{number}", folder, pool=case.pool, config=case.config, env=env)
    for world in worlds.values():
        fill(world, receiver)
    for world in worlds.values():
        world.worker.wait_for_log(" ready.", 120)
    return worlds


def test_a_worker_that_is_told_to_end_leaves_nothing_half_done(tmp_path):
    """Warm, soft and cold, threads and prefork, the main process and its whole group; side by side."""
    with ended(tmp_path) as ends:
        for name, end in ends.items():
            check = check_cold_end if name in COLD else check_end
            try:
                check(end, (CASES | COLD)[name])
            except AssertionError as error:
                error.add_note(f"The worker was told to end by: {name}")
                raise


def check_end(end: End, case: Case) -> None:
    """Check that what was open was finished, and that nothing else counts: exit 0, no claim is left."""
    assert end.code == 0
    pool = {"threads": "(thread)", "prefork": "(prefork)"}[case.pool]
    assert f"concurrency: 4 {pool}" in end.world.worker.log(), "--pool was not followed"
    records = end.world.records()
    assert len(end.posts) == GOOD + 2
    for one, record in records.items():
        if one in end.posts:
            assert len(end.posts[one]) == 1
            assert [a.outcome for a in record.attempts] == [
                "status" if record.account == "bad" else "delivered"
            ]
        else:
            assert (record.state, record.attempts) == ("waiting", ())
            assert end.world.client.hget(keys.record(one), "attempts") == b"0", "an attempt was counted"
    assert not end.world.client.exists(keys.CLAIMERS)
    counts = check_places(end.world.client)
    assert counts == Counter(done=GOOD, parked=2, waiting=(GOOD + 1) * BAD - GOOD - 2)
    for account, ids in end.world.ids.items():  # the front of the lane, in order
        assert end.world.lane(f"{account}/general") == [one for one in ids if one not in end.posts]
    assert "Traceback" not in end.world.worker.log()
    assert "ERROR" not in end.world.worker.log()


def check_cold_end(end: End, _case: Case) -> None:
    """Check an end at once, by SIGQUIT without a soft timeout: POSTs that were cut off are unknown and go out by their lease."""
    world = end.world
    assert end.code == 0
    log = world.worker.log()
    assert f"delivery.abandoned open={GOOD + 1}" in log or log.count("delivery.abandoned open=") > 1
    states = Counter(record.state for record in world.records().values())
    assert states == Counter(sending=GOOD + 1, parked=1, waiting=(GOOD + 1) * BAD - GOOD - 2)
    eventually(lambda: world.tick() or not world.client.exists(keys.CLAIMERS), what="the lease's end")
    for one, record in world.records().items():
        outcomes = [attempt.outcome for attempt in record.attempts]
        assert outcomes in ([], ["unknown"] if one in end.posts else [], ["status"])
        assert record.state == ("parked" if outcomes == ["status"] else "waiting")
        assert record.failures == (outcomes == ["status"])
    check_places(world.client)
    assert "Traceback" not in log


def test_a_prefork_child_that_is_ended_alone_takes_nobody_along(tmp_path):
    """SIGTERM to one child: it finishes and goes. SIGKILL, as the OOM killer does: its claims come back by lease."""
    with EmbeddedBroker() as broker, Receiver(Answers(0.7)) as receiver:
        world = make(broker, 1, "killed", tmp_path, pool="prefork", env=LEASE)

        def posting() -> list[int]:
            return children(world.worker.pid, receiver.port)

        def unknown() -> set[str]:
            records = world.records().items()
            return {one for one, record in records if "unknown" in [a.outcome for a in record.attempts]}

        try:
            fill(world, receiver)
            world.worker.wait_for_log(" ready.", 120)
            world.wake()
            (told, *_) = eventually(posting, what="a child that POSTs")
            os.kill(told, signal.SIGTERM)
            eventually(lambda: not Path(f"/proc/{told}").exists(), what="the end of the child that was told")
            assert not world.client.exists(keys.CLAIMERS), "it left claims behind"
            assert unknown() == set()
            assert posts_of(world, receiver).keys() == {
                one for one, record in world.records().items() if record.attempts
            }
            world.wake()
            (killed, *_) = eventually(posting, what="another child that POSTs")
            os.kill(killed, signal.SIGKILL)

            def done() -> bool:
                world.tick_there()
                records = world.records().values()
                return all(record.state == "delivered" for record in records if record.account != "bad")

            eventually(done, what="all delivered")
            assert world.worker.alive
            records, posts = world.records(), posts_of(world, receiver)
            suspects = unknown()
        finally:
            print(world.worker.log()[-4000:])
            world.worker.kill(group=True)
    assert suspects, "nothing was in flight in the child that was killed"
    assert {one for one, got in posts.items() if len(got) > 1} <= suspects
    assert all(record.failures == 0 for record in records.values() if record.account != "bad")
