"""A worker with toxic accounts: its healthy ones keep their times, and every attempt gets its word."""

from __future__ import annotations

import threading
import time

from events import MT
from helpers import ended, eventually, running, set_account
from transport.toxic_receiver import AT_ONCE, PATHS

from postbacks import send_postback, send_postbacks
from postbacks.devtools.receiver import Receiver

#: What takes the most of a worker.
GREEDY = (
    "chunk-extension-without-end",
    "chunks-of-a-byte-without-end",
    "flood-of-100",
    "headers-without-end",
)


def test_a_healthy_account_keeps_its_times_beside_receivers_that_do_everything_wrong(broker, tmp_path, toxic):
    """A worker process serves each way to misbehave as an account with a backlog, some of them ten times over."""
    urls = {f"path-{path}": toxic.url(path) for path in PATHS}
    urls |= {f"port-{name}": toxic.url("honest", name) for name in AT_ONCE}
    urls |= {f"again-{n}-{path}": toxic.url(path) for n in range(10) for path in GREEDY}
    limits = {"connect_timeout_s": 5, "answer_timeout_s": 5}
    with Receiver() as healthy:
        set_account("neighbour", url=healthy.url())
        for name, url in urls.items():
            set_account(name, url=url, **limits)
        with running(broker, tmp_path, env={"POSTBACKS_MAX_RESENDS": "0"}) as stack:
            ids = {name: send_postbacks(name, [MT] * 3)[0] for name in urls}
            eventually(lambda: toxic.served("silence"), what="the toxic receiver's load")
            sent_s: dict[str, float] = {}
            for _ in range(40):  # four seconds of a steady trickle
                sent_s[send_postback.delay("neighbour", MT).id] = time.time()
                threading.Event().wait(0.1)
            healthy.wait_for(40, 90)
            late_s = sorted(post.at - sent_s[post.postback_id] for post in healthy.received)
            client = broker.client()
            records = {name: ended(client, one) for name, one in ids.items()}
            client.close()
            assert all(worker.alive for worker in stack.workers)
    # a tick is a second; who waits for toxic receivers waits for five each time
    assert late_s[-1] < 20, late_s[-5:]
    assert late_s[len(late_s) // 2] < 5, late_s
    assert records["path-silence"].attempts[0].outcome == "answer_timeout"
    assert records["path-drip-body"].state == "delivered"
    assert "its body was not read to the end" in records["path-drip-body"].attempts[0].detail
    assert records["port-stalls-in-the-handshake"].attempts[0].outcome == "connect_timeout"
    assert all(record.attempts for record in records.values())
