"""Incidents of real receivers on a real broker: found by what the workers leave there, told once a change."""

from __future__ import annotations

import json
import logging
import re
from itertools import count
from pathlib import Path

import pytest
from events import EVENT, MO, MT
from helpers import environment, set_account
from jsonschema import Draft202012Validator
from operate.incident_world import IncidentWorld
from transport.certificates import Authority

from postbacks import accounts, keys, send_postback, send_postbacks
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.operate import pause_account, resume_account
from postbacks.operate.incidents.conditions import Condition
from postbacks.queue import routes

ROOT = Path(__file__).parents[2]
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs" / "notice.schema.json").read_text()))
ACCOUNTS = 500


@pytest.fixture
def world(broker, tmp_path, monkeypatch):
    """System with a history in a file."""
    made = IncidentWorld(broker, f"sqlite:///{tmp_path}/history.db", monkeypatch)
    yield made
    made.close()


@pytest.fixture
def moody():
    """Receiver that fails with its ``status``, and 200 once that is set."""
    receiver = Receiver(lambda _: Answer(receiver.status))
    receiver.status = 503
    with receiver:
        yield receiver


def set_many(world: IncidentWorld, url: str, number: int) -> list[str]:
    """Store accounts that share a URL, all at once."""
    made = {f"account-{i}": accounts.make_account(f"account-{i}", url=url) for i in range(number)}
    world.rig.client.hset(keys.ACCOUNTS, mapping={name: account.row() for name, account in made.items()})
    return list(made)


# -- receivers -------------------------------------------------------------------------------------


def test_a_storm_of_500_accounts_behind_one_host_is_one_incident_and_three_notices(
    broker, tmp_path, monkeypatch, moody, caplog
):
    """Down until everything is dead, after three attempts each; then well, as those say that have something more to send."""
    caplog.set_level(logging.INFO, "postbacks.operate")
    with environment(POSTBACKS_MAX_RESENDS="2"):
        world = IncidentWorld(broker, f"sqlite:///{tmp_path}/history.db", monkeypatch)
        names = set_many(world, moody.url(), ACCOUNTS)
        for name in names:
            send_postback.delay(name, MT)
        world.work()
        world.watch(15, every_s=300)
        moody.status = 200
        send_postback.delay(names[-1], MT)
        world.watch(7)
    (incident,) = world.incidents()
    assert [change for change, _ in world.told()] == ["opened", "grew", "recovered"]
    opened, grew, recovered = (data for _, data in world.told())
    assert opened["sentence"].startswith("it answers 503; every attempt has failed since ")
    assert "and 497 more; 500 wait; the first dies at " in opened["sentence"]
    assert grew["sentence"].endswith("nothing waits; 500 have died")
    assert recovered["sentence"].startswith("it answers 200 again, after 15 min")
    assert recovered["sentence"].endswith("; 500 died")
    assert recovered["resend"].startswith("postbacks resend --host 127.0.0.1 --state dead --between 20")
    assert incident.figures["accounts"] == ACCOUNTS
    lines = [record for record in caplog.records if record.event.startswith("incident.")]
    assert [record.event for record in lines] == ["incident.opened", "incident.grew", "incident.recovered"]
    assert "The receiver failed: look at its log." in lines[0].detail
    world.close()


def test_the_end_of_an_accounts_incident_has_the_very_line_that_resends_what_died(world, moody):
    """And the window of it holds what died, and nothing that came later."""
    set_account("acme", url=moody.url())
    send_postbacks("acme", [MT] * 3)
    world.work()
    world.watch(30, every_s=300)
    moody.status = 200
    send_postback.delay("acme", MT)
    world.watch(7)
    (incident,) = world.incidents()
    command, account, name, state, dead, between, begin, end = incident.resend.split()[1:]
    assert (command, account, name, state, dead) == ("resend", "--account", "acme", "--state", "dead")
    assert between == "--between"
    assert incident.sentence.endswith("; 3 died")
    assert begin < end
    assert begin.endswith("Z")


def test_what_waits_and_the_opt_outs_among_it_are_counted_and_none_is_lost_on_the_way(world, moody):
    """A person's number is in no notice."""
    set_account("acme", url=moody.url())
    send_postbacks("acme", [MT] * 4 + [MO, EVENT | {"CODE": "N302"}])
    world.work()
    world.watch(6)
    ((change, data),) = world.told()
    assert change == "opened"
    assert "; 6 wait, 2 opt-outs among them; the first dies at " in data["sentence"]
    assert data["advice"] == (
        "The receiver failed: look at its log. `postbacks ping acme` tries it and says more. "
        "`postbacks account pause acme` keeps what waits from dying."
    )
    assert data["figures"]["opt_outs"] == 2
    assert MO["FROM"] not in json.dumps(data)


def test_a_thousand_that_wait_open_an_incident_after_a_minute(broker, tmp_path, monkeypatch, moody):
    """POSTBACKS_INCIDENT_AFTER_POSTBACKS; five of them here."""
    world = IncidentWorld(broker, f"sqlite:///{tmp_path}/history.db", monkeypatch, incident_after_postbacks=5)
    set_account("acme", url=moody.url())
    send_postbacks("acme", [MT] * 5)
    world.work()
    for seconds, told in ((30, []), (40, ["opened"])):
        world.advance(seconds)
        world.rig.tick()
        world.look()
        assert [change for change, _ in world.told()] == told
    world.close()


def test_an_endpoint_that_fails_one_of_three_posts_is_no_incident(world):
    """However long it goes on."""
    posts = count()
    with Receiver(lambda _: Answer(500 if next(posts) % 3 == 2 else 200)) as receiver:
        set_account("acme", url=receiver.url())
        for _ in range(20):
            send_postbacks("acme", [MT] * 3)
            world.watch(1)
    assert world.incidents() == []
    assert next(posts) >= 60


def test_an_account_that_is_refused_itself_stays_an_incident_though_its_host_answers_others(world):
    """A 404 is its own matter, also when all of it has died."""
    with Receiver(lambda post: Answer(404 if post.path == "/gone" else 200)) as receiver:
        set_account("acme", url=receiver.url("/gone"))
        set_account("beta", url=receiver.url("/"))
        send_postback.delay("acme", MT)
        world.work()
        for _ in range(8):
            send_postback.delay("beta", MT)
            world.watch(5, every_s=300)
    ((_, opened), (change, _)) = world.told()
    assert opened["accounts"] == ["acme"]
    assert opened["sentence"].startswith("it answers 404; ")
    assert change == "grew"
    assert world.incidents()[0].is_open


def test_an_account_that_goes_elsewhere_takes_no_failure_along(world, moody):
    """All of it has died when its URL is mended: nothing has failed at the new one."""
    set_account("acme", url=moody.url())
    send_postback.delay("acme", MT)
    world.work()
    world.watch(30, every_s=300)
    with Receiver() as other:
        moved = accounts.make_account("acme", url=other.url())
        routes.publish(world.rig.scripts, ["acme"], {"acme": moved}, keep_ms=1000)  # by the world's clock
        set_account("acme", url=other.url())
        send_postback.delay("acme", MT)
        world.work()  # answered there, which says nothing of where it failed
        world.watch(8)
    (incident,) = world.incidents()
    assert f"{incident.subject}/" == moody.url("/")
    assert not incident.is_open
    assert incident.sentence.startswith("nothing is sent there any more, after 30 min of failures; 1 died")


def test_a_paused_accounts_receiver_is_no_incident_and_one_that_is_paused_later_ends_without_success(
    world, moody
):
    """The end says that nothing is tried any more."""
    set_account("acme", url=moody.url())
    send_postback.delay("acme", MT)
    world.work()
    world.watch(6)
    pause_account("acme", reason="they move")
    world.watch(6)
    (incident,) = world.incidents()
    assert not incident.is_open
    assert incident.sentence == (
        "nothing is tried there any more, after 6 min of failures: account acme is paused; nothing of it is dead"
    )
    resume_account("acme")


def test_an_expired_certificate_is_named_with_what_to_do(world, tmp_path):
    """A real server of TLS whose authority the account trusts."""
    authority = Authority(tmp_path)
    certificate = authority.issue("127.0.0.1", from_days=-5, to_days=-1)
    with certificate_server(certificate) as port:
        set_account("acme", url=f"https://127.0.0.1:{port}/", ca_bundle=authority.pem)
        send_postback.delay("acme", MT)
        world.work()
        world.watch(6)
    ((_, data),) = world.told()
    assert data["title"] == f"127.0.0.1:{port} fails"
    assert data["sentence"].startswith(
        "the server's certificate has expired; every attempt has failed since "
    )
    assert data["advice"].startswith("Renew the server's certificate, and reload the server.")


def certificate_server(certificate):
    """Serve TLS with a certificate, for one handshake after the other, until the block ends."""
    import socket
    import threading
    from contextlib import contextmanager, suppress

    @contextmanager
    def serve():
        context = certificate.server()
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def run() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with suppress(OSError), connection, context.wrap_socket(connection, server_side=True):
                        pass

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            yield listener.getsockname()[1]
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)

    return serve()


# -- the system ------------------------------------------------------------------------------------


def test_ticks_that_are_late_are_told_with_who_is_missing(world):
    """Half a minute after the last one; a system that never ran is none that fails."""
    world.look()
    world.rig.tick()
    world.advance(15)
    world.look()
    assert world.told() == []
    world.advance(20)  # the margins are what a look takes on a busy machine
    world.look()
    ((_, data),) = world.told()
    assert data["title"] == "ticks are late"
    assert re.match(
        r"The last tick finished \d\d s ago \(limit 10 s\)\. No worker has been heard of", data["sentence"]
    )
    assert "No beat has been heard of" in data["sentence"]
    for _ in range(12):
        world.advance(30)
        world.rig.tick()
        world.look()
    assert [change for change, _ in world.told()] == ["opened", "recovered"]
    # The five minutes of quiet behind it are not counted: it stood from the last tick until the next one.
    assert re.fullmatch(r"over after \d+ s", world.incidents()[0].sentence)


def test_the_brokers_memory_is_told_from_four_fifths_on_and_again_where_it_is_nearly_full(world):
    client = world.rig.client
    used = client.info("memory")["used_memory"]
    try:
        client.config_set("maxmemory", int(used / 0.85))
        world.look()
        assert [data["title"] for _, data in world.told()] == ["the broker's memory fills up"]
        client.config_set("maxmemory", int(used / 0.96))
        world.advance(601)
        world.rig.tick()
        world.look()
    finally:
        client.config_set("maxmemory", 0)
    assert [change for change, _ in world.told()] == ["opened", "grew"]
    assert "from 98% on it refuses postbacks" in world.told()[-1][1]["sentence"]


def test_a_history_that_is_over_a_minute_behind_is_told(world):
    set_account("acme", url="http://127.0.0.1:9999/")
    send_postback.delay("acme", MT)
    world.rig.tick()
    for seconds in (50, 15):
        world.advance(seconds)
        world.rig.tick()
        world.look()
    told = [data for _, data in world.told() if data["kind"] == "history"]
    assert [data["title"] for data in told] == ["the history is behind"]
    assert told[0]["figures"]["lag_s"] > 60


def test_an_account_at_its_backlog_limit_is_told_and_a_paused_one_from_half_of_it_on(
    broker, tmp_path, monkeypatch
):
    """The lane that fails besides is its endpoint's matter."""
    world = IncidentWorld(broker, f"sqlite:///{tmp_path}/history.db", monkeypatch, max_waiting_per_account=10)
    for name in ("full", "half", "paused"):
        set_account(name, url="http://127.0.0.1:9999/")
    pause_account("paused", reason="they move their servers")
    send_postbacks("full", [MT] * 10)
    send_postbacks("half", [MT] * 5)
    send_postbacks("paused", [MT] * 5)
    world.rig.tick()
    world.look()
    told = {data["kind"]: data for _, data in world.told()}
    assert {kind: data["subject"] for kind, data in told.items()} == {
        "backlog": "full/mt",
        "paused": "paused",
    }
    assert told["backlog"]["sentence"].startswith(
        "10 postbacks of full in group mt are open, of at most 10; "
    )
    assert "(they move their servers); 5 of group mt are open, of at most 10" in told["paused"]["sentence"]
    resume_account("paused")
    world.close()


# -- the finder, on conditions as sources give them ------------------------------------------------


class Faults:
    """Source whose conditions a test sets."""

    def __init__(self) -> None:
        self.stand: list[Condition] = []

    def __call__(self, _look):
        """Return what stands."""
        return list(self.stand)

    def set(self, *subjects: str, **more: object) -> None:
        """Let these stand and no other."""
        self.stand = [
            Condition(kind="fault", subject=one, title=f"{one} fails", sentence="so it is", advice="", **more)
            for one in subjects
        ]


@pytest.fixture
def faults(world):
    """Source that the finder asks alone."""
    made = Faults()
    world.finder._sources = {"fault": made}
    return made


def test_each_look_is_one_incident_a_key_however_often_it_is_looked(world, faults):
    faults.set("a", "b")
    for _ in range(10):
        world.look()
        world.advance(10)
    assert [incident.subject for incident in world.incidents()] == ["a", "b"]
    assert [change for change, _ in world.told()] == ["opened", "opened"]


def test_more_than_twenty_at_once_are_told_as_one(world, faults):
    """Later ones belong to it, and what is left at its end is named."""
    everybody = [f"host-{number:04}" for number in range(60)]
    faults.set(*everybody)
    world.look()
    faults.set(*everybody, "late")
    world.advance(10)
    world.look()
    ((change, data),) = world.told()
    assert (change, data["kind"]) == ("opened", "many")
    assert data["sentence"].startswith("60 incidents since ")
    assert len(world.incidents()) == 62
    faults.set("host-0000", "late")
    for _ in range(32):
        world.advance(20)
        world.look()
    assert [change for change, _ in world.told()] == ["opened", "recovered"]
    assert world.told()[-1][1]["sentence"].endswith("; 2 of them still stand")
    faults.set("new")
    world.advance(10)
    world.look()
    assert world.told()[-1][1]["subject"] == "new"


def test_a_muted_incident_is_kept_and_not_told_until_the_mute_ends(world, faults):
    """The change that was withheld is told then."""
    from postbacks.operate.incidents import store

    faults.set("a", size=5)
    world.look()
    number = world.incidents()[0].id
    until_ms = world.incidents()[0].course.opened_ms + 3_600_000
    with world.recorder.transaction() as connection:
        store.mute(connection, number, until_ms, "they know", "ann")
    faults.set("a", size=50)
    for _ in range(5):
        world.advance(900)
        world.look()
    assert [(notice.change, notice.state) for notice in world.notices()] == [
        ("opened", "log_alone"),
        ("grew", "muted"),
        ("grew", "log_alone"),
    ]
    assert world.incidents()[0].mute_reason == "they know"


def test_a_source_that_could_not_see_all_ends_nothing(world, faults):
    from postbacks.operate.incidents.conditions import Incomplete

    faults.set("a")
    world.look()

    def cut(_look):
        yield from ()
        raise Incomplete("more")

    world.finder._sources = {"fault": cut}
    for _ in range(60):
        world.advance(20)
        world.look()
    assert world.incidents()[0].is_open


def test_what_ended_before_the_history_goes_is_pruned(world, faults):
    faults.set("a")
    world.look()
    faults.set()
    for _ in range(32):
        world.advance(20)
        world.look()
    assert not world.incidents()[0].is_open
    world.advance(91 * 86_400)
    world.finder._prune_s = 0.0
    world.look()
    assert world.incidents() == []
    assert world.notices() == []


# -- the page --------------------------------------------------------------------------------------


def test_each_notice_is_as_its_schema_says_and_so_is_the_example_of_the_page(world, moody):
    set_account("acme", url=moody.url())
    send_postback.delay("acme", MT)
    world.work()
    world.watch(30, every_s=300)
    moody.status = 200
    send_postback.delay("acme", MT)
    world.watch(7)
    bodies = [json.loads(notice.body) for notice in world.notices()]
    assert [body["type"] for body in bodies] == ["incident.opened", "incident.grew", "incident.recovered"]
    page = (ROOT / "docs" / "operate.md").read_text()
    section = page.split("\n## Incidents and notices\n")[1]
    example = json.loads(section.split("```json\n")[1].split("```")[0])
    for body in (*bodies, example):
        SCHEMA.validate(body)
    assert example["data"].keys() == bodies[0]["data"].keys()
    assert example["data"]["figures"].keys() == bodies[0]["data"]["figures"].keys()
