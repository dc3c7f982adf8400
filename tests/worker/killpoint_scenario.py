"""A process that lives a day of postbacks and is killed at a named point of it, again and again.

Reads lines of JSON from standard input, each ``{"point": …, "passes": …, "url": …, "dead_port": …}``;
for each it forks a child, which arms the point and lives the day, and prints the child's end. The
parent stays single-threaded, so that forking is safe, and imports once.
"""

from __future__ import annotations

import json
import os
import sys

from events import EVENT
from helpers import Rig, set_account

from postbacks import keys, killpoints, resend, send_postback, send_postbacks, settings
from postbacks.broker.client import client_for
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.client import producer
from postbacks.ledger.digest import digest_of
from postbacks.ledger.record import SCHEMA
from postbacks.queue import tick
from postbacks.queue.actions import cancel
from postbacks.queue.rows import PutBackRow

tick.TICK_BUDGET_S = 60.0  # a tick takes in all that waits, however busy the machine is


class _Broker:
    """Broker as far as the system in this process needs it."""

    def client(self):
        loaded = settings.load()
        client_for.cache_clear()
        return client_for(loaded.broker_url, loaded.broker_timeout_s)


def gone_from_broker(postback_id: str, url: str) -> PutBackRow:
    """Make the row of a postback that only the history has."""
    event = parse_event(EVENT)
    document = render(event)
    return PutBackRow(
        id=postback_id, account="good", group=event.group, origin=event.origin, code=event.code, url=f"{url}/good", endpoint=url,
        xml=document, created_ms=1_780_000_000_000, sequence=1, attempts=0, digest=digest_of("good", document, None),
        own="0", first_id="", alone=0,
    )  # fmt: skip


def live(order: dict) -> None:
    """Every move at least once; each id is printed when its call has returned."""
    rig = Rig(_Broker())
    set_account("good", url=order["url"] + "/good", weight=2, max_transfers=4)
    set_account("bad", url=order["url"] + "/bad")
    set_account("hole", url=f"http://127.0.0.1:{order['dead_port']}/")
    killpoints.arm(order["point"], order["passes"])
    producer.BATCH = 4

    def said(*ids: str) -> None:
        print(*ids, flush=True)

    said(*send_postbacks("good", [EVENT] * 9))
    said(*send_postbacks("hole", [EVENT] * 4))
    said(send_postback.delay("bad", EVENT).id)
    revoked = send_postback.apply_async(("good", EVENT), countdown=600)
    said(revoked.id)
    rig.tick()
    set_account("bad", url=order["url"] + "/bad", weight=3, answer_timeout_s=9)  # its pace and its row
    cancel(revoked.id)
    rig.client.hdel(keys.record(revoked.id), "digest")  # as version 0.1.0 has written it: compared once more
    send_postback.send_with_celery(("good", EVENT), {}, task_id=revoked.id, producer=producer.RedisProducer())
    rig.scripts.claim(
        "dies", 1, at_most=3, suspects_max=3, free=100, held_max=0, held_per_lane=1, slow_lanes=()
    )
    rig.advance(5)
    rig.tick()  # reaps what "dies" had
    for _ in range(4):
        rig.deliver()
        rig.advance(301)
        rig.tick()
    for key in rig.client.zrange("postbacks:dead", 0, 0):
        resend(key.decode())
    rig.scripts.put_back(SCHEMA, gone_from_broker("left-the-broker", order["url"]), [])
    said("left-the-broker")
    rig.scripts.pause("good", None, "{}")
    rig.scripts.resume("good")
    rig.scripts.erase("nobody", [rig.client.zrange(keys.DONE, 0, 0)[0].decode()])
    rig.scripts.erase_messages("nobody", 1000, [b"none"])
    rig.scripts.renew("nobody", 1000)
    rig.scripts.postpone("nobody", 1000, "account_unusable", ["none"])
    rig.scripts.accept_alone("nobody")
    rig.scripts.make_room(0, 0, 0, 1, 0)
    rig.scripts.limit_changes(1, 1, "none")
    rig.scripts.drop(0, "", ["none"])
    rig.deliver()
    rig.close()


def main() -> None:
    """Fork a child for each order; print its exit status."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            live(json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(f"end {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
