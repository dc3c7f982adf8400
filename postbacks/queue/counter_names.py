"""Names of the counters in ``postbacks:totals``, which count over all workers."""

from __future__ import annotations

from typing import Final

from postbacks.accounts import NO_URL, UNKNOWN_ACCOUNT
from postbacks.accounts.routing import (
    ACCOUNT_CHANGED,
    ACCOUNT_REMOVED,
    ACCOUNT_UNUSABLE,
    BACKLOG_FULL,
    BROKER_AWAY,
    EXPIRED,
    WORKER_STOPPED,
)

#: Counted by ``commit.lua``: ``attempt:`` by outcome; ``answer:`` POSTs by bucket, not cumulative, those without an
#: answer in the last; ``first:`` first POSTs by group and by bucket of their wait.
ATTEMPT: Final = "attempt:"
ANSWER: Final = "answer:"
ANSWER_MS: Final = "answer_ms"
FIRST_POST: Final = "first:"
FIRST_POST_MS: Final = "first_ms:"
POSTS: Final = "posts"
CONNECTIONS: Final = "connections"
RENEWALS: Final = "renewals"
DEAD: Final = "dead"
#: Counted by ``note_tick.lua``.
TICKS: Final = "ticks"
LATE_TICKS: Final = "late_ticks"
#: Counted by ``accept.lua``; what ends unsent later on by ``_routes.lua`` and ``retire.lua`` as well.
ACCEPTED: Final = "accepted:"
SKIPPED: Final = "skipped"
REFUSED: Final = "refused:"
ID_TAKEN: Final = "id_taken"
UNROUTED: Final = "unrouted"
UNROUTED_OF_LEFT: Final = "unrouted_of_left"
STUBS: Final = "stubs"
#: Counted by ``retain.lua``.
UNROUTED_DROPPED: Final = "unrouted_dropped"
SHARE_DROPPED: Final = "dead_dropped"
#: Counted by ``make_room.lua`` and ``drop.lua``.
EARLY_DONE: Final = "early_done"
EARLY_DEAD: Final = "early_dead"
ASKED_DROPPED: Final = "asked_dropped"

#: Counted by ``retain.lua`` and ``make_room.lua``: of what they dropped.
UNRECORDED_DROPPED: Final = "unrecorded_dropped"

#: Counted by ``postpone.lua``.
PUT_OFF: Final = "put_off:"

#: Message that is no postback, or that killed every tick which took it in alone.
UNREADABLE_MESSAGE: Final = "unreadable"
#: Reasons for which a postback is dead without an attempt; ``id_taken`` has a total of its own.
REFUSALS: Final = (UNKNOWN_ACCOUNT, NO_URL, BACKLOG_FULL, EXPIRED, ACCOUNT_REMOVED, UNREADABLE_MESSAGE)
#: Reasons for which a claimed postback is put off, no attempt counted.
PUT_OFFS: Final = (ACCOUNT_UNUSABLE, ACCOUNT_CHANGED, BROKER_AWAY, WORKER_STOPPED)
