"""The doctor: silent about a healthy system, plain about a sick one, and no danger to either."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from damage import DAMAGE, lose_claim, lose_parked
from events import MT
from helpers import set_account
from ward import LANE, doctor_of, wrong

from postbacks import keys, send_postbacks
from postbacks.cli import main
from postbacks.devtools.receiver import dead_port
from postbacks.doctor import CHECKS, audit
from postbacks.doctor import doctor as rounds
from postbacks.ledger.record import SCHEMA
from postbacks.monitor import snapshot

FIXABLE = {check.name for check in CHECKS if check.fix}


def test_a_system_with_a_postback_of_every_kind_is_healthy(ward):
    report = doctor_of(ward.rig).examine()
    assert report.wrong == []
    assert "2 waiting, 1 claimed, 1 parked" in report.facts[2]


@pytest.mark.parametrize(("damage", "name", "words"), DAMAGE, ids=[damage[0].__name__ for damage in DAMAGE])
def test_each_damage_is_found_explained_and_repaired_where_no_guess_is_needed(ward, damage, name, words):
    """Found by the check that is made for it; after --fix a second look is clean and nothing was lost."""
    damage(ward)
    report = doctor_of(ward.rig).examine()
    result = next(result for result in report.results if result.check.name == name)
    assert result.findings, wrong(report)
    assert words in result.sentence
    assert result.check.remedy.endswith(".")
    kept = {one for one in (*ward.waiting, ward.parked, ward.done, ward.sending) if ward.field(one, "state")}
    report, done = doctor_of(ward.rig).fix()
    if name in FIXABLE:
        assert wrong(report) <= {"workers"}  # nobody runs here who would claim what is back in its lane
        assert name in {repair.result.check.name for repair in done}
        assert doctor_of(ward.rig).fix()[1] == []
    else:
        assert report.findings(name)
    for one in kept - {ward.done}:
        assert ward.field(one, "state") in {b"waiting", b"parked", b"sending", None}


def test_a_claim_that_the_ledger_lost_sight_of_is_sent_again_as_an_unknown_attempt(ward):
    """By the rule of reap: its POST may have begun."""
    lose_claim(ward)
    doctor_of(ward.rig).fix()
    assert [attempt.outcome for attempt in ward.rig.record(ward.sending).attempts] == ["unknown"]
    assert ward.client.zrange(keys.QUARANTINE, 0, -1) == [ward.sending.encode()]
    assert ward.client.hget(keys.LANE_STATE + LANE, "claimed") == b"0"


def test_lost_postbacks_go_back_to_the_front_in_their_order(ward):
    """The oldest first."""
    ward.client.delete(keys.lane(LANE))
    doctor_of(ward.rig).fix()
    assert [one.decode() for one in ward.client.lrange(keys.lane(LANE), 0, -1)] == ward.waiting


def test_what_moves_between_the_looks_is_not_reported(ward, monkeypatch):
    """Suspected in the first look, in its place at the second: not a word."""
    lose_parked(ward)

    def mend(_):
        ward.client.zadd(keys.PARKED, {ward.parked: int(ward.field(ward.parked, "next_ms"))})

    monkeypatch.setattr(rounds.time, "sleep", mend)
    assert doctor_of(ward.rig).examine().wrong == []


def test_records_of_another_version_are_worth_a_word(ward):
    ward.client.hset(keys.record(ward.done), "schema", SCHEMA + 1)
    report = doctor_of(ward.rig).examine()
    assert report.wrong == []
    assert report.findings("schemas")[str(SCHEMA + 1)] == f"version {SCHEMA + 1}: 1"


def test_an_audit_that_may_not_take_its_time_says_so(ward):
    report = doctor_of(ward.rig, within_s=0).examine()
    assert report.wrong == []
    assert report.findings("incomplete")


def test_more_accounts_than_are_asked_for_what_waits_are_said(rig, monkeypatch):
    """Nothing is judged of what waits in the others."""
    rig.client.hset(keys.BACKLOG, mapping={f"a{number}": 1 for number in range(1000)})
    monkeypatch.setattr(snapshot, "PAGES_MAX", 1)
    assert set(doctor_of(rig).examine().findings("incomplete")) == {"accounts"}
    monkeypatch.setattr(snapshot, "PAGES_MAX", 100)
    assert doctor_of(rig).examine().findings("incomplete") == {}


def test_the_first_line_says_how_far_it_looked(rig):
    """All records, or how many of about how many, in how long; the check in the listing says the same."""
    with dead_port() as port:
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        send_postbacks("acme", [MT] * 2500)
        while rig.tick().more:
            pass
        whole, cut = (
            CliRunner().invoke(main, ["doctor", "--within", within], prog_name="postbacks").stdout
            for within in ("60", "0")
        )
    assert re.fullmatch(r"looked at  all 2,500 records in \d+ s", whole.splitlines()[0])
    line = r"looked at  (\d,000 of about 2,500 records in \d+ s): give it more time \(--within\)"
    said = re.fullmatch(line, cut.splitlines()[0])
    assert said
    assert said[1] in cut.partition("incomplete")[2]


def test_an_audit_says_what_it_did_not_look_at_though_it_saw_every_record():
    """The time ran out behind the records: the ids in lanes and indexes were not asked for theirs."""
    done = audit.Audit(records=1_500_000, total=1_500_100, scanned=True, took_s=60.2)
    assert done.complete
    assert done.progress == "all 1,500,000 records in 60 s"
    done.missing = "every place for ids without a record"
    assert not done.complete
    assert done.progress == "all 1,500,000 records in 60 s, but not at every place for ids without a record"


def test_a_long_lane_is_read_to_its_end(rig):
    """More than one page, and a double at its other end is found."""
    with dead_port() as port:
        set_account("acme", url=f"http://127.0.0.1:{port}/")
        ids = send_postbacks("acme", [MT] * 2500)
        while rig.tick().more:
            pass
        doctor = doctor_of(rig)
        assert "2,500 waiting" in doctor.examine().facts[2]
        rig.client.rpush(keys.lane(LANE), ids[0])
        assert list(doctor.examine().findings(audit.TWO_PLACES)) == [ids[0]]
