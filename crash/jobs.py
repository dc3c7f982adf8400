"""Asker of a run's jobs: lets postbacks die as nobody knows their accounts, sets these, and asks for a resend of each.

It may be killed at any moment. What it noted stands in files; started again, it goes on with what is not noted. A job that
was asked for although its call raised is found by the refusal of the one that is asked for again.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from crash.customers import make
from crash.jobs_world import LATER
from crash.notes import Caller, Notes, read_notes
from crash.producer import BLOCK
from postbacks import keys, send_postbacks
from postbacks.accounts import redis_accounts
from postbacks.broker.client import client
from postbacks.history import Query
from postbacks.operate.accounts import publish
from postbacks.operate.jobs.requests import start_resend
from tests.events import MO, MT

#: Share of the load's time in which the jobs move at their rate, so that most of the faults hit them.
MOVED_IN: Final = 0.7
#: Seconds after the load's begin: faults come a second later.
ASKED_AT_S: Final = 2.0


def main() -> None:
    """Let postbacks die, or ask for the jobs.

    Arguments: folder, the hosts' URLs, how many postbacks, seconds of the load, when it begins (epoch; 0 before it).
    """
    folder, urls = Path(sys.argv[1]), sys.argv[2].split()
    each, seconds, began_s = int(sys.argv[3]) // len(LATER), float(sys.argv[4]), float(sys.argv[5])
    caller = Caller(folder / "raised")
    if not began_s:
        _prepare(Notes(folder / "accepted"), caller, each)
        return
    asked = {fields[0] for fields in read_notes(folder / "asked")}
    notes = Notes(folder / "asked")
    time.sleep(max(0.0, began_s + ASKED_AT_S - time.time()))
    for account in LATER:
        if account in asked:
            continue
        made = make(account, 0, urls)
        caller.call("-", partial(redis_accounts().set, made))
        caller.call("-", partial(publish, account, made))
        rate = each / (MOVED_IN * seconds)
        query = Query(account=account, state="dead")
        job = caller.call("-", partial(start_resend, query, rate=rate, by="crash"))
        notes.write(f"{account} {job.id}\n")


def _prepare(accepted: Notes, caller: Caller, each: int) -> None:
    """Send postbacks for accounts that nobody knows, and wait until all are dead. No fault is done yet."""
    for account in LATER:
        for first in range(0, each, BLOCK):
            count = min(BLOCK, each - first)
            ids = send_postbacks(account, [MT if number % 2 else MO for number in range(count)])
            accepted.write("".join(f"-1 {chosen_id} {time.time():.3f}\n" for chosen_id in ids))
    while caller.call("-", lambda: client().zcard(keys.DEAD)) < each * len(LATER):
        time.sleep(0.2)


if __name__ == "__main__":
    main()
