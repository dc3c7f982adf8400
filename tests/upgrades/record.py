"""Records what a broker holds after a run of an old version, one postback of every kind, as JSON on standard output.

Made once a version, by that version itself, and kept beside its package::

    PYTHONPATH=tests/upgrades/postbacks-0.1.0.zip python tests/upgrades/record.py > tests/upgrades/broker-0.1.0.json

Texts are Latin-1, so that any byte survives; the receiver's port stands as ``{port}``.
"""

from __future__ import annotations

import json
import os
import sys
import uuid

os.environ["POSTBACKS_ALLOWED_NETWORKS"] = "127.0.0.0/8"

import postbacks
from postbacks import accounts, keys, send_postback, send_postbacks, settings
from postbacks.broker import client
from postbacks.delivery.loop import DeliveryLoop
from postbacks.delivery.profile import Profiles
from postbacks.delivery.transport import CurlAdapter
from postbacks.local import EmbeddedBroker
from postbacks.queue.scripts import Scripts
from postbacks.queue.tick import Tick
from postbacks.receiver import Answer, Receiver
from postbacks.tasks import cancel, decide

#: Not that of events.py, which imports a package that 0.1.0 has elsewhere.
EVENT = {"ORIGIN": "SUB", "CODE": "N302", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}


def main() -> None:
    """Live a day of postbacks and print what is left of it."""
    assert ".zip" in postbacks.__file__, postbacks.__file__
    with (
        EmbeddedBroker() as broker,
        Receiver(lambda post: Answer(500 if "bad" in post.path else 200)) as receiver,
    ):
        os.environ["POSTBACKS_BROKER_URL"] = broker.url
        settings.load.cache_clear()
        live(receiver)
        text = json.dumps(recorded(), indent=1, sort_keys=True)
    print(text.replace(f":{receiver.port}", ":{port}"))


def live(receiver: Receiver) -> None:
    """Live through one postback of every kind."""
    scripts, adapter = Scripts(client()), CurlAdapter(settings.load())

    def tick() -> None:
        Tick(scripts, accounts.store(), settings.load()).run()

    def deliver() -> None:
        now = settings.load()
        DeliveryLoop(scripts, adapter, Profiles(accounts.store(), now), now, decide).run()

    for name in ("good", "bad"):
        accounts.redis_accounts().set(accounts.make_account(name, url=receiver.url(f"/{name}")))
    send_postbacks("good", [EVENT] * 3)  # delivered
    send_postbacks("unknown", [EVENT])  # skipped
    send_postbacks("bad", [EVENT] * 2)  # parked after a failure
    cancelled = send_postback.apply_async(("good", EVENT), countdown=600).id
    send_postback.apply_async(("good", EVENT), countdown=300)  # parked by its caller
    client().lpush(keys.QUEUE, "not a message")  # dead: unreadable
    tick()
    cancel(cancelled)
    deliver()
    os.environ["POSTBACKS_MAX_RESENDS"] = "0"
    settings.load.cache_clear()
    send_postbacks("bad", [EVENT])  # dead: it failed
    tick()
    deliver()
    send_postbacks("good", [EVENT] * 4)
    tick()
    scripts.claim(  # two in flight, the others wait
        uuid.uuid4().hex,
        30_000,
        at_most=2,
        suspects_max=2,
        free=100,
        held_max=0,
        held_per_lane=1,
        slow_lanes=(),
    )
    send_postbacks("bad", [EVENT] * 2)
    tick()
    scripts.claim(  # one in flight, one held behind it
        uuid.uuid4().hex,
        30_000,
        at_most=1,
        suspects_max=1,
        free=100,
        held_max=5,
        held_per_lane=5,
        slow_lanes=(),
    )
    send_postbacks("good", [EVENT])
    scripts.take_in(uuid.uuid4().hex, 10_000, 10)  # in the hands of a tick that died
    send_postbacks("good", [EVENT])  # not yet taken in
    adapter.close()


def recorded() -> dict[str, object]:
    """Every key of the broker by its type."""
    readers = {
        "string": lambda key: client().get(key),
        "list": lambda key: client().lrange(key, 0, -1),
        "hash": lambda key: client().hgetall(key),
        "zset": lambda key: client().zrange(key, 0, -1, withscores=True),
    }
    found = {}
    for key in client().keys("*"):
        kind = client().type(key).decode()
        found[key.decode("latin-1")] = {"type": kind, "value": plain(readers[kind](key))}
    return found


def plain(value: object) -> object:
    """As JSON can say it."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {plain(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
