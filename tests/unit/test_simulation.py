"""The simulation of benchmarks/: it loses nothing, keeps the scripts' rules, and says the same twice."""

from __future__ import annotations

import random
from dataclasses import fields
from importlib.resources import files

import pytest

from benchmarks.simulation.costs import Costs
from benchmarks.simulation.rules import PART_OF_FREE, SUSPECTS_FIRST, Piece, Rules
from benchmarks.simulation.system import Load, System
from benchmarks.simulation.world import TROUBLES, make_accounts
from postbacks.settings import Settings

#: Of the right size; what they are exactly is a matter of machines.
COSTS = Costs(**{field.name: 1e-3 if field.name == "asking_s" else 5e-5 for field in fields(Costs)})
SETTINGS = Settings(
    retry_countdown_s=5, max_resends=2, connect_timeout_s=2, answer_timeout_s=2, lane_max_transfers=10
)


def system_of(per_s: float, until_s: float, *, down: int = 0, seed: int = 3) -> System:
    """100 accounts with as many events a second, of which so many are down, each in another way."""
    accounts = make_accounts(random.Random(seed), 100, exponent=0.5)
    system = System(COSTS, SETTINGS, accounts, workers=2, seed=seed)
    system.add(Load(accounts, lambda _: per_s, until_s))
    for number in range(down):
        account = accounts[number * 20 + 7]
        system.add_trouble(account, TROUBLES[number % len(TROUBLES)], 1.0, 1e9)
    return system


@pytest.mark.parametrize("trouble", TROUBLES)
def test_every_simulated_postback_ends_delivered_or_dead_once(trouble):
    """Nothing is lost or counted twice, and who is down has its postbacks given up after the last resend."""
    system = system_of(200, 4.0)
    down = system.accounts[7]
    system.add_trouble(down, trouble, 1.0, 1e9)
    system.run(4.0)
    system.run(400.0, drained=True)
    rules = system.rules
    assert rules.lost() == rules.queued == rules.waiting == rules.claimed == rules.parked == 0
    assert rules.accepted == rules.delivered + rules.dead
    assert rules.accepted == pytest.approx(800, rel=0.2)
    assert rules.dead > 0
    assert sum(account.backlog for account in system.accounts) == 0


def test_a_seed_gives_the_same_simulation_twice():
    """Two runs of a seed agree in every sample; another seed's does not."""
    one, same, other = (system_of(200, 6.0, down=4, seed=seed) for seed in (3, 3, 4))
    for system in (one, same, other):
        system.run(6.0)
    assert one.figures.samples == same.figures.samples
    assert one.figures.posts == same.figures.posts
    assert one.figures.samples != other.figures.samples


def test_simulated_lanes_keep_the_limits_of_the_scripts():
    """A lane that fails has one transfer, and no lane has more than ten."""
    system = system_of(600, 15.0, down=5)
    system.run(1.0)
    most_failing = most_well = 0
    while system.env.now < 15:
        system.run(system.env.now + 0.02)
        for account in system.accounts:
            for lane in account.lanes.values():
                count = sum(loop.open_of(lane) for loop in system.loops)
                # by then what was open when its first time-out was noted has ended; MO comes too seldom
                if account.is_down and lane.group == "mt" and system.env.now > 6:
                    most_failing = max(most_failing, count)
                elif not account.is_down:
                    most_well = max(most_well, count)
    assert most_failing == 1
    assert 2 <= most_well <= SETTINGS.lane_max_transfers


def test_simulated_customers_that_are_down_do_not_delay_the_others():
    """The p99 of the healthy with a twentieth down is what it is without."""
    late = []
    for down in (0, 5):
        system = system_of(300, 20.0, down=down)
        system.run(20.0)
        well = [account.number for account in system.accounts if not account.is_down]
        late.append(system.figures.together(system.figures.first, well).percentile(0.99))
    assert late[1] <= 1.1 * late[0]


def test_simulated_replies_go_before_a_backlog_of_receipts():
    """While MO postbacks wait, their account's receipts have one transfer, though 1,000 wait in front."""
    rules = Rules(SETTINGS)
    (account,) = make_accounts(random.Random(1), 1)
    for group, count in (("mt", 1_000), ("mo", 20)):
        account.lane(group).warm(10)
        rules.accept([(account.lane(group), Piece(count, 0.0, 0.0, 0))])
    begun, _, count = rules.claim(50, 1000, 2000, 0)
    assert {lane.group: sum(piece.size for piece in pieces) for lane, pieces in begun} == {"mt": 1, "mo": 10}
    assert count == 11


def test_the_simulation_has_the_numbers_of_claim_lua():
    """What is written as a number in the script is the same number in the model."""
    script = (files("postbacks.queue") / "claim.lua").read_text("utf-8")
    assert f"/ {PART_OF_FREE}))" in script
    assert f"math.ceil(at_most / {SUSPECTS_FIRST})" in script
