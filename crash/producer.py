"""Producer of a run: sends postbacks at a steady rate, and notes an id only after its call has returned.

It may be killed at any moment. What it noted stands in a file; started again, it goes on with what is
not noted, under the same ids: the id of postback n follows from the seed and n. Every fourth block of
25 goes through ``send_postbacks``, which chooses the ids itself, so these are noted only as they return
and a call that raised is made anew with new ids.
"""

from __future__ import annotations

import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Final

from crash.customers import ACCOUNTS_SET, BAD, GOOD, NOBODY, OFF, make
from crash.notes import Caller, Notes, read_notes
from postbacks import send_postback, send_postbacks
from postbacks.accounts import redis_accounts
from tests.events import EVENT, MO, MT

#: One postback in this many goes to a server that always answers 500; never one of a bulk block.
BAD_EVERY: Final = 200
#: Places in that row of an account that is off, and of one that nobody knows; neither in a bulk block.
OFF_AT, NOBODY_AT = 110, 115
BLOCK: Final = 25
#: Blocks of which the last one goes through ``send_postbacks``.
BULK_EVERY: Final = 4
#: One postback in so many has a URL of its own.
OWN_EVERY: Final = 39

_EVENTS: Final = (MT, MO, EVENT)


def postback_id(seed: int, number: int) -> str:
    """Make the id of a postback that is sent by itself."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}/{number}"))


def account_of(number: int) -> str:
    """Choose the account of a postback."""
    if number % BAD_EVERY == BAD_EVERY // 20:
        return f"bad{number // BAD_EVERY % BAD}"
    if number % BAD_EVERY in {OFF_AT, NOBODY_AT}:
        return OFF if number % BAD_EVERY == OFF_AT else NOBODY
    return f"good{number // BLOCK % GOOD}"


def is_bulk(number: int) -> bool:
    """Tell whether a postback goes through ``send_postbacks``."""
    return number // BLOCK % BULK_EVERY == BULK_EVERY - 1


class _Producer:
    def __init__(self, folder: Path, urls: list[str]) -> None:
        self._urls = urls
        self._accepted = Notes(folder / "accepted")
        self._call = Caller(folder / "raised").call

    def send_one(self, seed: int, number: int) -> None:
        chosen_id = postback_id(seed, number)
        event = _EVENTS[number % len(_EVENTS)]
        args, kwargs = (account_of(number), event), self._own_url(number)
        self._call(chosen_id, lambda: send_postback.apply_async(args, kwargs, task_id=chosen_id, retry=False))
        self._accepted.write(f"{number} {chosen_id} {time.time():.3f}\n")

    def send_block(self, numbers: list[int]) -> None:
        events = [_EVENTS[number % len(_EVENTS)] for number in numbers]
        ids = self._call("-", lambda: send_postbacks(account_of(numbers[0]), events))
        now_s = time.time()
        pairs = zip(numbers, ids, strict=True)
        self._accepted.write("".join(f"{number} {chosen_id} {now_s:.3f}\n" for number, chosen_id in pairs))

    def _own_url(self, number: int) -> dict[str, str]:
        """Return the URL of its own that one in so many postbacks has: each of the two hosts in turn."""
        if number % OWN_EVERY:
            return {}
        return {"url": f"{self._urls[number // OWN_EVERY % 2]}/own/{account_of(number)}"}

    def set_accounts(self) -> None:
        for name in [f"good{number}" for number in range(GOOD)] + [f"bad{number}" for number in range(BAD)]:
            self._call("-", partial(redis_accounts().set, make(name, 0, self._urls)))
        self._call("-", partial(redis_accounts().set, make(OFF, 0, self._urls, off=True)))


def main() -> None:
    """Send all that is not noted. Arguments: folder, the hosts' URLs, seed, how many, over how many seconds, when they began (epoch)."""
    folder, urls = Path(sys.argv[1]), sys.argv[2].split()
    seed, count, seconds, began_s = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])
    noted = {int(fields[0]) for fields in read_notes(folder / "accepted")}
    producer = _Producer(folder, urls)
    if not (folder / ACCOUNTS_SET).exists():  # once: they are changed from then on
        producer.set_accounts()
        (folder / ACCOUNTS_SET).touch()
    for first in range(0, count, BLOCK):
        block = [number for number in range(first, min(count, first + BLOCK)) if number not in noted]
        if is_bulk(first):
            time.sleep(max(0.0, began_s + first * seconds / count - time.time()))
            if block:
                producer.send_block(block)
            continue
        for number in block:
            time.sleep(max(0.0, began_s + number * seconds / count - time.time()))
            producer.send_one(seed, number)


if __name__ == "__main__":
    main()
