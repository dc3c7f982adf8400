"""The states of a postback and the ways between them.

::

    (queue) -> waiting | parked | skipped | dead     taken in
    (queue) -> cancelled                             revoked before it was taken in
    waiting -> sending                               claimed
    sending -> delivered | parked | dead             its POST was noted
    sending -> waiting                               given back, or its lease ran out
    parked  -> waiting                               its countdown ended
    waiting | parked -> cancelled                    revoked
    sending -> cancelled                             revoked while open, and its POST failed
    dead    -> waiting                               sent again by hand
"""

from __future__ import annotations

from typing import Final

from celery import states as celery_states

WAITING: Final = "waiting"
SENDING: Final = "sending"
PARKED: Final = "parked"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
SKIPPED: Final = "skipped"
CANCELLED: Final = "cancelled"

STATES: Final = (WAITING, SENDING, PARKED, DELIVERED, DEAD, SKIPPED, CANCELLED)
#: States that nothing leaves by itself.
FINAL_STATES: Final = frozenset({DELIVERED, DEAD, SKIPPED, CANCELLED})

#: What Celery calls them. A parked postback that was never sent is PENDING: see ``backend.py``.
CELERY_STATES: Final = {
    WAITING: celery_states.PENDING,
    SENDING: celery_states.STARTED,
    PARKED: celery_states.RETRY,
    DELIVERED: celery_states.SUCCESS,
    DEAD: celery_states.FAILURE,
    SKIPPED: celery_states.FAILURE,
    CANCELLED: celery_states.REVOKED,
}

#: What ``accept.lua`` says of a postback: accepted; known already, so left as it is; dead as too many of its account wait;
#: dead under a fresh id as another postback has its own; dead as too many wait, and without its document; cancelled before
#: it was taken in.
ACCEPTED: Final = 1
KNOWN: Final = 0
BACKLOG_FULL: Final = -1
ID_TAKEN: Final = -2
STUB: Final = -3
REVOKED: Final = 2
