"""Broker whose clock really jumps under load, an hour forward and an hour back: ``make clock``.

Needs libfaketime (Debian: ``apt-get install faketime``), which gives the broker's process another clock than the
workers have. Exit 0 only if nothing was lost, and nothing sent more often than the ledger says why.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from postbacks import accounts, keys, send_postbacks, settings
from postbacks.broker.client import client
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Answer, Received, Receiver
from postbacks.devtools.stack import LocalStack
from postbacks.doctor import Doctor
from postbacks.ledger.ledger import Ledger
from postbacks.queue.scripts import Scripts
from tests.events import EVENT

LIBRARIES: Final = (Path("/usr/lib"), Path("/usr/local/lib"), Path("/opt/homebrew/lib"))
HOUR_S: Final = 3600
#: Seconds after the start, and by how much the broker's clock is wrong from then on.
JUMPS: Final = ((4.0, HOUR_S), (8.0, 0))
LOAD_S: Final = 12.0


def library() -> Path:
    """Find libfaketime. SystemExit: it is not installed."""
    variable = os.environ.get("FAKETIME_LIBRARY")
    paths = (
        [Path(variable)]
        if variable
        else [path for root in LIBRARIES for path in root.rglob("libfaketime.so.1")]
    )
    if not paths or not paths[0].exists():
        raise SystemExit(
            "make clock needs libfaketime: apt-get install faketime, or set FAKETIME_LIBRARY to it."
        )
    return paths[0]


def main() -> int:
    """Start everything, run, and print the count."""
    path = library()
    with tempfile.TemporaryDirectory(prefix="postbacks-clock-") as folder:
        home = Path(folder)
        offset = home / "offset"
        offset.write_text("+0\n")
        fake = {
            "LD_PRELOAD": str(path), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        os.environ["POSTBACKS_ALLOWED_NETWORKS"] = "127.0.0.0/8"
        broker = EmbeddedBroker(home / "broker")
        os.environ.update(fake)  # for the broker's process alone
        try:
            broker.start()
        finally:
            for name in fake:
                del os.environ[name]
        os.environ["POSTBACKS_BROKER_URL"] = broker.url
        try:
            with LocalStack(broker, workers=2, env={}, log_dir=home):
                return run(offset)
        finally:
            broker.stop()


def run(offset: Path) -> int:
    """Send the load, let the clock jump, and count."""
    seen: Counter[str] = Counter()

    def answer(post: Received) -> Answer:
        seen[post.postback_id] += 1
        failed = "flaky" in post.path and seen[post.postback_id] == 1
        return Answer(500 if failed else 200, delay_s=0.2)

    ids: list[str] = []
    doctor = Doctor(Scripts(client()), settings.load())
    with Receiver(answer) as receiver:
        for kind in ("good", "flaky"):
            for number in range(5):
                name = f"{kind}{number}"
                accounts.redis_accounts().set(accounts.make_account(name, url=receiver.url(f"/{name}")))
        timers = [threading.Timer(at_s, offset.write_text, [f"+{ahead_s}\n"]) for at_s, ahead_s in JUMPS]
        for timer in timers:
            timer.start()
        began_s = time.monotonic()
        rounds = 0
        while time.monotonic() < began_s + LOAD_S:
            ids += send_postbacks(f"good{rounds % 5}", [EVENT] * 10)
            ids += send_postbacks(f"flaky{rounds % 5}", [EVENT])
            rounds += 1
            time.sleep(max(0.0, began_s + rounds * 0.05 - time.monotonic()))
        for timer in timers:
            timer.join()
        jump = doctor.examine().findings("clock-jump")
        # What failed between the jumps is due in an hour and five minutes, what failed since in five: time flies.
        until_s = time.monotonic() + 120
        while client().zcard(keys.DONE) + client().zcard(keys.DEAD) < len(ids) and time.monotonic() < until_s:
            time.sleep(0.2)
            if client().zcard(keys.PARKED) and not client().llen(keys.QUEUE):
                offset.write_text(f"+{HOUR_S + 400 + int(time.monotonic() - began_s) * 60}\n")
        posts = receiver.by_id()
    ledger = Ledger(client())
    records = {postback_id: ledger.get(postback_id) for postback_id in ids}
    delivered = [postback_id for postback_id, record in records.items() if record.state == "delivered"]
    unknown = {
        postback_id
        for postback_id, record in records.items()
        for a in record.attempts
        if a.outcome == "unknown"
    }
    expected = {
        postback_id: 1 if records[postback_id].account.startswith("good") else 2 for postback_id in ids
    }
    again = [postback_id for postback_id in ids if len(posts.get(postback_id, ())) > expected[postback_id]]
    unexplained = [postback_id for postback_id in again if postback_id not in unknown]
    resent = Counter(len(posts.get(postback_id, ())) for postback_id in ids if expected[postback_id] == 2)
    lost = [postback_id for postback_id in ids if not posts.get(postback_id)]
    print(f"accepted                              {len(ids):>6}")
    print(f"delivered                             {len(delivered):>6}")
    print(f"lost                                  {len(lost):>6}")
    print(f"POSTs of those that failed once       {dict(resent)}")
    print(f"sent again, the ledger says unknown   {len(again) - len(unexplained):>6}")
    print(f"sent again without a word             {len(unexplained):>6}")
    print(f"doctor, after the jump back           {jump.get('', 'silent')}")
    return 0 if len(delivered) == len(ids) and not lost and not unexplained and jump else 1


if __name__ == "__main__":
    sys.exit(main())
