"""Customers of a run, and the process that changes them: moved to the other host, removed, set again, switched off.

An account's *generation* is in its URL's path, and host, header key and secret follow from it. So the receiver can say
of each POST whether it came to its host, with that generation's key, signed by that generation's secret.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from crash.notes import Caller, Notes, read_notes
from postbacks.accounts import Account, Secret, make_account, redis_accounts
from postbacks.catalogue import ORIGINS
from postbacks.operate.accounts import publish

#: Accounts that can be reached, and those whose server always answers 500.
GOOD, BAD = 20, 4
#: Accounts that are in one state from the beginning to the end: every origin is off; never set.
OFF, NOBODY = "off0", "nobody0"
ALWAYS: Final = {OFF: "off", NOBODY: "gone"}
#: Accounts that are changed during the load; the others stay as they are.
CHANGED: Final = tuple(f"good{number}" for number in range(1, GOOD, 2))
#: What is done to each of them, one a round. ``""`` lets it stay removed for another round, which is longer than what
#: waits for it is kept.
ROUNDS: Final = ("move", "remove", "set", "off", "on", "remove", "", "set")
#: Seconds of a round.
ROUND_S: Final = 2.0
KEY: Final = "X-Api-Key"
#: File that stands once the producer has set all accounts.
ACCOUNTS_SET: Final = "accounts-set"


class Change(NamedTuple):
    """Change of an account: from then on it is ``on``, ``off`` or ``gone``, with this generation."""

    account: str
    state: str
    generation: int


def host_of(account: str, generation: int) -> int:
    """Return which of the two hosts an account's POSTs go to."""
    return (zlib.crc32(account.encode()) + generation) % 2


def key_of(account: str, generation: int) -> str:
    """Return the header key that an account's host of this generation knows."""
    return f"{account}-{generation}-at-{host_of(account, generation)}"


def secret_of(account: str, generation: int) -> str:
    """Return the secret that an account's POSTs of this generation are signed with."""
    return "whsec_" + base64.b64encode(hashlib.sha256(key_of(account, generation).encode()).digest()).decode()


def make(account: str, generation: int, urls: list[str], *, off: bool = False) -> Account:
    """Build an account as it is in a generation."""
    return make_account(
        account,
        url=f"{urls[host_of(account, generation)]}/{account}/{generation}",
        headers={KEY: key_of(account, generation)},
        secrets=(Secret(value=secret_of(account, generation)),),
        off=frozenset(ORIGINS) if off else frozenset(),
    )


def changes(seconds: float) -> list[Change | None]:
    """Return all changes of a run in their order, None where nothing is done; at the end every account is set again."""
    generations = dict.fromkeys(CHANGED, 0)
    made: list[Change | None] = []
    for number in range(max(len(ROUNDS), int(seconds / ROUND_S)) * len(CHANGED)):
        account = CHANGED[number % len(CHANGED)]
        # each begins somewhere else, so that at any time some are moved, some are gone and some are off
        what = ROUNDS[(number // len(CHANGED) + 3 * (number % len(CHANGED))) % len(ROUNDS)]
        generations[account] += what in {"move", "set"}
        state = {"remove": "gone", "off": "off"}.get(what, "on")
        made.append(Change(account, state, generations[account]) if what else None)
    return [*made, *(Change(account, "on", generations[account] + 1) for account in CHANGED)]


def apply(change: Change, urls: list[str]) -> None:
    """Make one change, as ``postbacks account`` does. Raises BrokerError."""
    if change.state == "gone":
        redis_accounts().remove(change.account)
        publish(change.account, None)
        return
    account = make(change.account, change.generation, urls, off=change.state == "off")
    redis_accounts().set(account)
    publish(change.account, account)


def main() -> None:
    """Make the changes. Arguments: folder, the hosts' URLs, over how many seconds, when the load begins (epoch)."""
    folder, urls = Path(sys.argv[1]), sys.argv[2].split()
    seconds, began_s = float(sys.argv[3]), float(sys.argv[4])
    done = {int(fields[0]) for fields in read_notes(folder / "changes") if fields[1] == "done"}
    notes, caller = Notes(folder / "changes"), Caller(folder / "raised")
    planned = changes(seconds)
    while not (folder / ACCOUNTS_SET).exists():
        time.sleep(0.05)
    for number, change in enumerate(planned):
        if change is None or number in done:
            continue
        time.sleep(max(0.0, began_s + number * seconds / len(planned) - time.time()))
        notes.write(f"{number} begun {time.time():.3f}\n")
        caller.call("-", partial(apply, change, urls))
        notes.write(f"{number} done {time.time():.3f}\n")


if __name__ == "__main__":
    main()
