"""All workers are restarted one after the other under load, and no receiver notices."""

from __future__ import annotations

import threading
import time

import pytest
from events import EVENT
from helpers import check_places, eventually, running, set_account

from postbacks import keys, send_postbacks
from postbacks.devtools.receiver import Answer, Receiver, _Connection
from postbacks.ledger.ledger import Ledger

ACCOUNTS, EVERY_S = 20, 0.05


@pytest.mark.long
@pytest.mark.parametrize("a_second", [200, 500])
def test_a_rolling_restart_under_load_is_seen_by_no_receiver(broker, tmp_path, monkeypatch, a_second):
    """SIGTERM, exit 0, started again, one worker after the other: each postback one POST, one attempt, a 200."""
    batch = int(a_second * EVERY_S)
    cut: list[str] = []
    lost = _Connection.connection_lost

    def connection_lost(self, exc):
        if exc is not None or self._busy or self._head or self._buffer:
            cut.append(f"{exc!r}, busy: {self._busy}")
        lost(self, exc)

    monkeypatch.setattr(_Connection, "connection_lost", connection_lost)
    ids: list[str] = []
    over = threading.Event()
    codes: list[int] = []
    with Receiver(lambda _: Answer(delay_s=0.05)) as receiver, running(broker, tmp_path, workers=2) as stack:
        for number in range(ACCOUNTS):
            set_account(f"a{number}", url=receiver.url())

        def restart() -> None:
            try:
                for worker in stack.workers:
                    worker.terminate()
                    codes.append(worker.wait(90))
                    worker.start()
                    worker.wait_for_log(" ready.", 120)
            finally:
                over.set()

        restarting = threading.Thread(target=restart)
        began_s = time.monotonic()
        rounds = 0
        while not over.is_set() and rounds < 1200:
            ids += send_postbacks(f"a{rounds % ACCOUNTS}", [EVENT] * batch)
            rounds += 1
            if rounds == 20:
                restarting.start()
            time.sleep(max(0.0, began_s + rounds * EVERY_S - time.monotonic()))
        restarting.join(60)
        took_s = time.monotonic() - began_s
        client = broker.client()
        eventually(lambda: client.zcard(keys.DONE) == len(ids), what="all delivered")
        posts = receiver.by_id()
    print(f"{len(ids)} postbacks in {took_s:.1f} s")
    assert codes == [0, 0]
    assert {one: len(got) for one, got in posts.items() if len(got) != 1} == {}
    assert set(posts) == set(ids)
    ledger = Ledger(client)
    outcomes = {tuple(attempt.outcome for attempt in ledger.get(one).attempts) for one in ids}
    assert outcomes == {("delivered",)}
    assert cut == []
    assert check_places(client)["done"] == len(ids)
