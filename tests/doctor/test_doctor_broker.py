"""The doctor names what is wrong with a broker, and what it cannot see of it."""

from __future__ import annotations

import json

import pytest
from helpers import eventually
from ward import call

from postbacks.devtools.embedded_broker import EmbeddedBroker


@pytest.mark.parametrize(
    ("config", "level", "name", "words"),
    [
        ({"appendonly": "no"}, "wrong", "append-only", "there is no append-only file"),
        ({"appendfsync": "no"}, "wrong", "append-only", "appendfsync is no"),
        ({"appendfsync": "everysec"}, "note", "fsync", "appendfsync is everysec"),
        ({"maxmemory-policy": "allkeys-lru"}, "wrong", "eviction", "maxmemory-policy is allkeys-lru"),
        ({"hash-max-listpack-value": "64"}, "note", "records", "hash-max-listpack-value is 64"),
        ({"hash-max-listpack-entries": "512"}, "note", "records", "hash-max-listpack-entries is 512"),
        ({"maxmemory": "1100000"}, "wrong", "memory", "(maxmemory) are used"),
    ],
)
def test_what_is_wrong_with_a_broker_is_named(config, level, name, words):
    with EmbeddedBroker(config=config) as broker:
        lines = [json.loads(line) for line in call("--json", url=broker.url).stdout.splitlines()]
    (found,) = [line for line in lines if line["check"] == name]
    assert found["level"] == level
    assert words in found["says"]


def test_a_broker_that_keeps_its_configuration_to_itself_is_said_to_do_so():
    """Hosted ones forbid CONFIG: the checks that ask by it note that they cannot see."""
    with EmbeddedBroker() as broker:
        with broker.client() as client:
            client.execute_command(
                "ACL", "SETUSER", "hosted", "on", ">secret", "~*", "&*", "+@all", "-config"
            )
        shown = call("--json", url=f"redis://hosted:secret@127.0.0.1:{broker.port}/0")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    says = {line["check"]: line["says"] for line in lines if line["level"] == "note"}
    assert "the broker does not tell appendfsync" in says["fsync"]
    assert "the broker does not tell hash-max-listpack-value" in says["records"]


def test_a_replica_is_told_from_a_primary(broker):
    with EmbeddedBroker(config={"replicaof": f"127.0.0.1 {broker.port}"}) as replica:
        with replica.client() as client:
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        shown = call("--json", url=replica.url)
        assert "it is a replica and takes no writes" in shown.stdout
        assert shown.exit_code == 1
        shown = call("--json", url=broker.url)
        assert '"check": "replicas", "level": "ok"' in shown.stdout
