"""Forget a person: whatever identifies the person leaves the broker and the history, and a receipt says what was reached.

::

    from postbacks.operate.forget import count, forget, goes_on, pseudonym, wait

    print(count(number="15552310137"))
    receipt = wait(forget(number="15552310137", by="anna", why="asked by letter"))
    print(receipt.records, receipt.rows, receipt.not_reached)

The process that runs history does the work (``duty.py``), so that a request survives whoever made it. Where there is no
history, ``wait`` does it.
"""

from __future__ import annotations

from postbacks.operate.forget.asking import count, forget, goes_on, pseudonym, wait
from postbacks.operate.forget.counting import Count
from postbacks.operate.forget.request import Receipt

__all__ = ["Count", "Receipt", "count", "forget", "goes_on", "pseudonym", "wait"]
