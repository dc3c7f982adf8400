"""The states of a postback and the ways between them.

::

    (queue) -> waiting | parked | skipped | dead     taken in
    (queue) -> cancelled                             revoked before it was taken in
    waiting -> sending                               claimed, and its POST begins
    waiting -> held                                  claimed behind one that is tried first
    held    -> sending                               its POST begins
    held    -> parked | dead                         shared the connect time-out of the one that was tried
    held    -> waiting                               given back, or its loop's lease ran out
    held    -> cancelled                             revoked, as soon as it would have been sent or given back
    sending -> delivered | parked | dead             its POST was noted
    sending -> parked                                put off before its POST was made: no attempt is counted
    sending -> waiting | parked | dead               its loop's lease ran out: quarantine, pause, or given up as poison
    sending -> cancelled                             revoked while its POST was open, and that failed
    parked  -> waiting                               its countdown ended
    waiting | parked -> cancelled                    revoked
    waiting -> skipped | dead                        its account has switched its origin off, has no URL, or was removed
    dead | skipped -> waiting                        sent again by hand
    delivered | cancelled -> waiting                 sent again by a job whose filter names that state
    dead    -> (queue)                               the same, of a message that only a newer version reads
    (none)  -> waiting                               put back from the history's copy, where its record has left

A *held* postback has been claimed and no POST of it is under way. Its record says ``sending``, as all versions write it;
``reported`` tells the two apart by the attempts. Each step that counts an attempt begins a POST, and each step that ends
a POST writes the note ``attempt:N`` of that number or takes the count back:

==================================  ===========================================================
``claim.lua``, ``examine.lua``      a POST begins: the count goes up; nothing is counted of what is held
``begin.lua``                       the POST of a held one begins: the count goes up, once, however often it is asked
``commit.lua``                      the POST has ended: its note. A shared time-out: count and note together
``postpone.lua``                    the POST was not made: the count goes down
``reap.lua``, ``postbacks doctor``  the loop has gone: the note of what was open, outcome ``unknown``; none of what was held
``renew.lua``                       neither, only the lease
``replay.lua``, ``move_job.lua``    neither: the attempts stay, and the next one has the next number
==================================  ===========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container

WAITING: Final = "waiting"
SENDING: Final = "sending"
PARKED: Final = "parked"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
SKIPPED: Final = "skipped"
CANCELLED: Final = "cancelled"

#: States that a record can be in.
STATES: Final = (WAITING, SENDING, PARKED, DELIVERED, DEAD, SKIPPED, CANCELLED)
#: State that no record names: its record says ``sending``.
HELD: Final = "held"
#: States that nothing leaves by itself.
FINAL_STATES: Final = frozenset({DELIVERED, DEAD, SKIPPED, CANCELLED})

#: What ``accept.lua`` says of a postback: accepted; known already, so left as it is; dead as too many of its account wait;
#: dead under a fresh id as another postback has its own; dead as too many wait, and without its document; cancelled before
#: it was taken in.
ACCEPTED: Final = 1
KNOWN: Final = 0
BACKLOG_FULL: Final = -1
ID_TAKEN: Final = -2
STUB: Final = -3
REVOKED: Final = 2


def reported(state: str, counted: int, noted: Container[int]) -> str:
    """Return the state to report of a postback: ``held`` where its record says ``sending`` and no POST is under way.

    Args:
        state: the one that its record names.
        counted: attempts that its record counts, which is the number of the latest.
        noted: numbers of the attempts whose notes its record has.
    """
    return HELD if state == SENDING and (counted == 0 or counted in noted) else state
