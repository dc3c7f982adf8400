"""``postbacks list`` called in this process, over postbacks that a history has or had, or the broker alone."""

from __future__ import annotations

import time
import weakref

from click.testing import CliRunner
from helpers import environment
from history.records import make_document, make_record

from postbacks import keys
from postbacks.cli import main
from postbacks.history import migrations
from postbacks.history.engine import connect
from postbacks.history.writer import Writer
from postbacks.ledger.record import Attempt

URL = "https://hooks.example/in"
NO_HISTORY = "There is no history: these are postbacks that have ended, as the broker has them."


def call(*args, history=""):
    """Call ``postbacks list`` in this process, with or without a history."""
    with environment(POSTBACKS_HISTORY_URL=history):
        return CliRunner().invoke(main, ["list", *args], prog_name="postbacks")


def ids(shown):
    """Return the ids that were printed by ``-o id``."""
    assert shown.exit_code == 0, shown.output
    return shown.stdout.split()


HOUR_MS = int(time.time()) // 3600 * 3_600_000 - 3_600_000


def posts(*outcomes, at_ms=HOUR_MS, elapsed_ms=40):
    """Make the attempts of a postback, five minutes apart; a number is an answer's status."""
    return tuple(
        Attempt(
            number, at_ms + number * 300_000, "delivered" if outcome == 200 else "status" if isinstance(outcome, int) else outcome,
            outcome if isinstance(outcome, int) else None, elapsed_ms,
        )
        for number, outcome in enumerate(outcomes, start=1)
    )  # fmt: skip


#: Postbacks by id, the oldest first.
RECORDS = {
    "delivered": {"state": "delivered", "attempts": posts(200), "ended_ms": HOUR_MS + 60_000},
    "late": {"state": "delivered", "attempts": posts(503, 200, elapsed_ms=2500), "ended_ms": HOUR_MS + 70_000},
    "dead": {"state": "dead", "attempts": posts(*[503] * 6), "reason": "status", "ended_ms": HOUR_MS + 80_000},
    "refused": {"state": "dead", "account": "beta", "attempts": posts("refused"), "reason": "refused",
                "ended_ms": HOUR_MS + 90_000, "url": "http://10.0.0.9:8080/"},
    "skipped": {"state": "skipped", "reason": "origin_off", "url": "", "ended_ms": HOUR_MS + 50_000},
    "reply": {"state": "delivered", "origin": "SMS_MO", "code": "N211", "group": "mo", "attempts": posts(200),
              "ended_ms": HOUR_MS + 95_000, "document": make_document("of-reply", to="15551234567")},
    "waiting": {"state": "waiting"},
    "parked": {"state": "parked", "attempts": posts(500), "next_ms": HOUR_MS + 9_000_000},
}  # fmt: skip


class Recorded:
    """A history in SQLite that has records, and the URL that a command finds it by."""

    def __init__(self, folder, client):
        self.url = f"sqlite:///{folder}/history.db"
        self._client = client
        engine = connect(self.url)
        weakref.finalize(self, engine.dispose)  # as the end of a recorder's process would
        migrations.prepare(engine)
        self._writer = Writer(engine)
        self._writer.take_lease()

    def record(self, *records, recorded_ms=None):
        """Record what the broker has or had, until now."""
        self._writer.write(records, recorded_id="1-1", recorded_ms=recorded_ms or time.time_ns() // 1_000_000)

    def hold(self, postback_id, **fields):
        """Have the broker hold a record, and return it."""
        record = make_record(postback_id, **fields)
        self._client.delete(keys.record(postback_id))
        self._client.hset(keys.record(postback_id), mapping=record[1])
        if "ended_ms" in fields:
            index = keys.DEAD if fields["state"] == "dead" else keys.DONE
            self._client.zadd(index, {postback_id: fields["ended_ms"]})
        return record

    def forget(self, *postback_ids):
        """Have the broker hold no record of these."""
        for postback_id in postback_ids:
            self._client.delete(keys.record(postback_id))
            self._client.zrem(keys.DEAD, postback_id)
            self._client.zrem(keys.DONE, postback_id)

    def call(self, *args):
        """Call ``postbacks list`` with this history."""
        return call(*args, history=self.url)


def now_ms():
    """Return this machine's time, which is the suite's broker's."""
    return time.time_ns() // 1_000_000
