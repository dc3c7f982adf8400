"""The URL policy: an account is set by what the workers send to, whatever the shell's own environment says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from events import examples
from helpers import Rig, environment, eventually, running, set_account

from postbacks import keys, send_postback
from postbacks.accounts import redis_accounts, url_policy
from postbacks.cli import main
from postbacks.devtools.receiver import Receiver, dead_port
from postbacks.worker.bootsteps import UrlPolicyPublisher

NOTHING = {"POSTBACKS_ALLOWED_NETWORKS": ""}
EVENT = examples()["SMS_MO", "N211"]
LOOPBACK = {"POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8"}


@pytest.fixture
def client(broker):
    """The suite's broker, in which nobody has published; what a test publishes is taken back."""
    with broker.client() as client:
        yield client
        client.delete(keys.URL_POLICIES)


def published(**variables):
    """Publish as a worker with this environment does."""
    with environment(**variables):
        url_policy.publish()


def set_url(url, **variables):
    """``postbacks account set`` in a shell with this environment."""
    with environment(**variables):
        return CliRunner().invoke(main, ["account", "set", "acme", "--url", url])


@pytest.mark.parametrize(
    ("variables", "allowed", "refused"),
    [
        (LOOPBACK, "http://127.0.0.1/", "http://10.0.0.1/"),
        ({"POSTBACKS_DENIED_NETWORKS": "8.8.8.0/24"}, "http://8.8.4.4/", "http://8.8.8.8/"),
        ({"POSTBACKS_HTTPS_ONLY": "true"}, "https://acme.example/", "http://acme.example/"),
        ({"POSTBACKS_ALLOWED_PORTS": "81"}, "http://acme.example:81/", "http://acme.example/"),
    ],
)
def test_a_url_is_judged_by_the_workers_settings_and_not_by_the_shells(client, variables, allowed, refused):
    published(**{**NOTHING, **variables})
    assert set_url(allowed, **NOTHING).exit_code == 0
    before = redis_accounts().get("acme")
    done = set_url(refused, POSTBACKS_ALLOWED_NETWORKS="0.0.0.0/0")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: By the workers' settings, postbacks may not be sent to {refused}")
    assert redis_accounts().get("acme") == before


def test_a_url_that_the_account_has_already_is_judged_as_well(client):
    set_account("acme", url="http://127.0.0.1:8080/")
    published(**NOTHING)
    done = CliRunner().invoke(main, ["account", "set", "acme", "--rate", "50/s"])
    assert done.exit_code == 2
    assert redis_accounts().get("acme").rate is None


def test_where_no_worker_has_published_the_shells_own_settings_judge(client):
    """No worker runs, or those that run are of a version that publishes nothing."""
    assert set_url("http://127.0.0.1/", **LOOPBACK).exit_code == 0
    done = set_url("http://127.0.0.1/", **NOTHING)
    assert done.exit_code == 2
    assert "By this process's settings, postbacks may not be sent to http://127.0.0.1/" in done.stderr


def test_where_workers_differ_the_url_is_set_with_a_warning(client):
    published(**LOOPBACK)
    published(**NOTHING)
    done = set_url("http://127.0.0.1/", **NOTHING)
    assert done.exit_code == 0
    assert "Warning: the workers do not agree on http://127.0.0.1/: some of them refuse it" in done.stderr
    assert "Account acme is set." in done.stderr


def test_what_is_older_than_a_minute_does_not_count_and_is_dropped(client):
    published(**LOOPBACK)
    (policy,) = client.zrange(keys.URL_POLICIES, 0, -1)
    client.zincrby(keys.URL_POLICIES, -url_policy.KEPT_S * 1000 - 1, policy)
    assert url_policy.worker_policies() == []
    published(**NOTHING)
    assert client.zcard(keys.URL_POLICIES) == 1
    assert 0 < client.ttl(keys.URL_POLICIES) <= url_policy.KEPT_S


@pytest.mark.parametrize("text", ["nonsense", "[]", json.dumps({"allowed_networks": ["everywhere"]})])
def test_what_cannot_be_read_is_passed_over(client, text):
    """A newer version may write another form, anybody anything."""
    published(**LOOPBACK)
    client.zadd(keys.URL_POLICIES, {text: 9e15})
    assert len(url_policy.worker_policies()) == 1


def test_a_ping_goes_where_the_workers_would_send(client):
    with Receiver() as receiver:
        for workers, shell, code in ((LOOPBACK, NOTHING, 0), (NOTHING, LOOPBACK, 1)):
            client.delete(keys.URL_POLICIES)
            published(**workers)
            with environment(**shell):
                assert CliRunner().invoke(main, ["ping", receiver.url()]).exit_code == code
        assert receiver.count == 1


def test_a_policy_that_somebody_else_has_published_opens_no_guard(broker, client):
    with Receiver() as receiver:
        published(**LOOPBACK)
        with environment(**NOTHING):
            rig = Rig(broker)
            assert set_url(receiver.url(), **NOTHING).exit_code == 0
            postback_id = send_postback.delay("acme", EVENT).id
            rig.tick()
            rig.deliver()
            assert [attempt.outcome for attempt in rig.record(postback_id).attempts] == ["blocked"]
            rig.close()
        assert receiver.count == 0


def test_a_worker_publishes_before_it_is_ready_and_one_without_a_broker_goes_on(own_broker, tmp_path):
    with running(own_broker, tmp_path, env=LOOPBACK), own_broker.client() as client:
        ((policy, at_ms),) = client.zrange(keys.URL_POLICIES, 0, -1, withscores=True)
        assert json.loads(policy)["allowed_networks"] == ["127.0.0.0/8"]
        own_broker.restart()  # the consumer starts anew, and publishes at once; else it does when its time has come
        eventually(lambda: client.zscore(keys.URL_POLICIES, policy) > at_ms, url_policy.PUBLISH_EVERY_S + 20)
    with dead_port() as port, environment(POSTBACKS_BROKER_URL=f"redis://127.0.0.1:{port}/0"):
        UrlPolicyPublisher._publish()


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("http://127.0.0.1:25/", "POSTBACKS_ALLOWED_PORTS"),
        ("http://10.1.2.3/", "POSTBACKS_ALLOWED_NETWORKS"),
        ("http://127.0.0.1:8080/", "POSTBACKS_HTTPS_ONLY"),
        ("http://127.0.0.9:8080/", "POSTBACKS_DENIED_NETWORKS"),
    ],
)
def test_a_refused_url_names_the_setting_that_refuses_it(broker, url, setting):
    """A port that is not allowed is no matter of networks."""
    del broker
    https_only = str(setting == "POSTBACKS_HTTPS_ONLY")
    with environment(POSTBACKS_HTTPS_ONLY=https_only, POSTBACKS_DENIED_NETWORKS="127.0.0.9/32"):
        shown = CliRunner().invoke(main, ["account", "set", "acme", "--url", url])
    assert (shown.exit_code, f"see {setting} in docs/settings.md" in shown.stderr) == (2, True), shown.stderr
