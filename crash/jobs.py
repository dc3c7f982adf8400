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

from crash.customers import ACCOUNTS_SET, make
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

#: Share of the load's time after which the jobs are asked for, and in which they move at their rate.
ASKED_AT: Final = 0.25
MOVED_IN: Final = 0.5
#: Seconds for which a job waits that the deaths before it are all there.
SETTLE_S: Final = 4.0


def main() -> None:
    """Ask for the jobs. Arguments: folder, the hosts' URLs, how many postbacks, over how many seconds, when it began (epoch)."""
    folder, urls = Path(sys.argv[1]), sys.argv[2].split()
    count, seconds, began_s = int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
    accepted, caller = Notes(folder / "accepted"), Caller(folder / "raised")
    asked = {fields[0] for fields in read_notes(folder / "asked")}
    notes = Notes(folder / "asked")
    while not (folder / ACCOUNTS_SET).exists():
        time.sleep(0.05)
    each = count // len(LATER)
    sent: dict[str, int] = dict.fromkeys(LATER, 0)
    for fields in read_notes(folder / "later"):
        sent[fields[0]] += BLOCK
    later = Notes(folder / "later")
    for account in LATER:
        while sent[account] < each:
            events = [MT if number % 2 else MO for number in range(BLOCK)]
            ids = caller.call("-", partial(send_postbacks, account, events))
            accepted.write("".join(f"-1 {chosen_id} {time.time():.3f}\n" for chosen_id in ids))
            later.write(f"{account} {BLOCK}\n")
            sent[account] += BLOCK
    time.sleep(max(0.0, began_s + ASKED_AT * seconds - time.time()))
    while not caller.call("-", _is_taken_in):
        time.sleep(0.2)
    time.sleep(SETTLE_S)
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


def _is_taken_in() -> bool:
    return not any(client().llen(key) for key in (*keys.QUEUE_LISTS, keys.INTAKE))


if __name__ == "__main__":
    main()
