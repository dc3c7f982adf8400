"""Broker URLs with options, on a real broker: all that talk to it talk to the same database of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from events import examples
from helpers import BASE_ENV, BrokerAt, ended, running
from kombu import Connection

from postbacks import keys
from postbacks.broker.client import client_for, kombu_options, kombu_url
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver

pytestmark = pytest.mark.usefixtures("forked")

EVENT = json.dumps(examples()["SMS_MO", "N211"])
PROGRAM = str(Path(sys.executable).with_name("postbacks"))
ENCODED = "p%40ss%2Fw%23rd"


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A broker with a user who has a password, on a port and a socket; yields both, and a client of its own."""
    socket = tmp_path_factory.mktemp("broker") / "r.sock"
    with EmbeddedBroker(config={"unixsocket": str(socket)}) as made, made.client() as client:
        client.acl_setuser("shop", enabled=True, passwords=["+p@ss/w#rd"], commands=["+@all"], keys=["*"])
        client.execute_command("ACL", "SETUSER", "shop", "allchannels")
        yield made, socket, client


@pytest.mark.parametrize(
    "url",
    [
        f"redis://shop:{ENCODED}@127.0.0.1:PORT/5?client_name=till",
        f"redis://shop:{ENCODED}@127.0.0.1:PORT?db=5&client_name=till",
        f"redis://127.0.0.1:PORT?virtual_host=5&username=shop&password={ENCODED}&client_name=till",
        f"redis://shop:{ENCODED}@:PORT/5?db=5&client_name=till",
        f"unix://shop:{ENCODED}@SOCKET?db=5&client_name=till",
        f"redis+socket://shop:{ENCODED}@SOCKET?virtual_host=5&client_name=till",
        f"unix://SOCKET?db=5&username=shop&password={ENCODED}&client_name=till",
    ],
)
def test_redis_py_and_kombu_are_the_same_user_of_the_same_database(locked, url):
    """As the server sees their connections."""
    made, socket, _ = locked
    url = url.replace("PORT", str(made.port)).replace("SOCKET", str(socket))
    with Connection(kombu_url(url), transport_options=kombu_options(url, 1.0)) as connection:
        for asked in (client_for(url, 1.0), connection.default_channel.client):
            seen = asked.client_info()
            assert (seen["user"], int(seen["db"]), seen["name"]) == ("shop", 5, "till")
            assert ("U" in seen["flags"]) is url.startswith(("unix", "redis+socket"))


def test_a_url_with_options_serves_the_command_line_the_caller_the_beat_and_the_worker(locked, tmp_path):
    """An account is set, an event sent and delivered, all of it in the database that the URL names."""
    made, _, client = locked
    url = f"redis://shop:{ENCODED}@127.0.0.1:{made.port}?db=5&client_name=till"
    env = {**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": url}

    def postbacks(*args: str) -> str:
        called = [PROGRAM, *args]
        done = subprocess.run(called, env=env, input=EVENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with Receiver() as receiver, running(BrokerAt(url), tmp_path):
        postbacks("account", "set", "acme", "--url", receiver.url())
        one = postbacks("send", "acme", "-", "--wait", "30")
        assert ended(client_for(url, 1.0), one.split()[0]).state == "delivered"
    assert client.exists(keys.ACCOUNTS) == 0
    assert client.dbsize() == 0
