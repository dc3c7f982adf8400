"""The primary dies, the sentinels elect another: a short form of ``crash.sentinel``, and what callers are told."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from events import EVENT
from forked_processes import forking_module
from helpers import environment

from crash.sentinel_group import PASSWORD, SENTINEL_PASSWORD, SentinelGroup
from postbacks import keys, send_postback, send_postbacks
from postbacks.broker import sentinel
from postbacks.broker.client import client
from postbacks.broker.fitness import check
from postbacks.cli import main
from postbacks.errors import BrokerUnreachable, NotReplicated

ROOT = Path(__file__).parents[2]


def test_a_primary_that_is_killed_under_load_takes_nothing_accepted_with_it():
    """The replica had each postback as well (WAIT): all arrive, none is stuck, none is in two places.

    There is one replica: of two the sentinels may choose the other one on a busy machine (docs/settings.md).
    """
    options = "--seed 3 --wait 1 --replicas 1 --faults 1 --pairs 1 --seconds 5 --postbacks 500 --drain 240 --countdown 0.2"
    done = subprocess.run(
        forking_module("crash.sentinel", *options.split()),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("POSTBACKS_")},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "The promise holds." in done.stdout
    assert "primary killed" in done.stdout


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    """Group of one sentinel, one primary and one replica: enough to ask."""
    with SentinelGroup(tmp_path_factory.mktemp("group"), replicas=1, sentinels=1) as made:
        yield made


def refused(url: str, **env: str) -> str:
    """Return the sentence that a caller gets, within the limit."""
    began_s = time.monotonic()
    with (
        environment(POSTBACKS_BROKER_URL=url, POSTBACKS_BROKER_TIMEOUT_S="3", **env),
        pytest.raises(BrokerUnreachable) as raised,
    ):
        send_postback.delay("acme", EVENT)
    assert time.monotonic() - began_s < 20
    sentence = str(raised.value)
    assert PASSWORD not in sentence
    assert SENTINEL_PASSWORD not in sentence
    return sentence


def test_a_caller_is_told_which_of_a_sentinels_troubles_it_is(group):
    """An unknown name, a server that is no sentinel, a wrong password, a frozen one: no answer, and why."""
    assert "know no primary called 'other' (they know: postbacks-primary)" in refused(
        group.url_of(group.sentinels, "other")
    )
    assert sentinel.troubles(group.url, 3) == {}
    (unknown,) = sentinel.troubles(group.url_of(group.sentinels, "other"), 3).values()
    assert "No such master" in unknown
    wrong = group.url.replace(SENTINEL_PASSWORD, "wrong")
    assert "no sentinel answers (127.0.0.1:" in refused(wrong)
    servers = group.url_of(group.servers).partition("&")[0]
    assert "no sentinel answers (127.0.0.1:" in refused(servers)
    group.sentinels[0].pause()
    try:
        assert "no sentinel answers (127.0.0.1:" in refused(group.url.replace("db=0", "db=3"))
        found = sentinel.troubles(group.url, 1)
        assert list(found) == [f"127.0.0.1:{group.sentinels[0].port}"]
    finally:
        group.sentinels[0].resume()


def test_a_postback_is_accepted_only_when_enough_replicas_have_it(group):
    """With the replica frozen the caller is told that it may be delivered all the same; a batch as well."""
    with environment(POSTBACKS_BROKER_URL=group.url, POSTBACKS_WAIT_REPLICAS="1"):
        assert check() == []
        one = send_postback.delay("acme", EVENT).id
        with group.servers[1].client() as replica:
            assert replica.llen(keys.QUEUE_LISTS[0]) == 1
        group.servers[1].pause()
        try:
            with environment(POSTBACKS_BROKER_TIMEOUT_S="3"):
                for call in (
                    lambda: send_postback.apply_async(("acme", EVENT), task_id=one),
                    lambda: send_postbacks("acme", [EVENT] * 3),
                ):
                    began_s = time.monotonic()
                    with pytest.raises(NotReplicated, match=r"0 of the 1 replicas .* may still be delivered"):
                        call()
                    assert time.monotonic() - began_s < 30
        finally:
            group.servers[1].resume()
        assert client().llen(keys.QUEUE_LISTS[0]) == 5
    with environment(POSTBACKS_BROKER_URL=group.url, POSTBACKS_WAIT_REPLICAS="2"):
        (warning,) = check()
        shown = CliRunner().invoke(main, ["doctor", "--json"])
        lines = {line["check"]: line for line in map(json.loads, shown.stdout.splitlines())}
        assert lines["sentinels"]["level"] == "ok"
        assert "there are 1, POSTBACKS_WAIT_REPLICAS is 2" in lines["replicas"]["says"]
        assert "POSTBACKS_WAIT_REPLICAS is 2" in warning
        assert "1 replica" in warning
