"""Every Redis key that postbacks uses: the whole schema, in one place.

``{id}`` is a postback's id, ``{lane}`` is ``account/group`` and ``{token}`` one run of a delivering
loop. Lanes, claims and the parked set hold ids only; the postback itself lives once, in its record.
All times are milliseconds of the broker's clock.

====================================  ======  ==========================================================
key                                   type    meaning
====================================  ======  ==========================================================
``postbacks`` and sub-lists           list    messages as Celery publishes them; kombu splits a queue by
                                              priority; pushed left, so the oldest is the rightmost
``postbacks.work``                    list    ``dispatch`` and ``deliver`` messages, the workers' queue
``postbacks:intake``                  list    messages that a tick has taken and not yet accepted
``postbacks:intake-lease``            hash    token and expires_ms of the tick that holds the intake; deaths of
                                              ticks that held it, alone_deaths while they accepted its first
                                              alone, alone while one does
``postbacks:record:{id}``             hash    the ledger record (see ``ledger/record.py``)
``postbacks:lane:{lane}``             list    ids that wait, oldest left
``postbacks:pace:{lane}``             hash    claimed (ids in claims), limit (transfers allowed), failing,
                                              suspect (0/1), tag (virtual time of its next turn), held (of the
                                              claimed, those whose POST has not begun)
``postbacks:pacing``                  hash    account -> what it has of its own: weight, us between two POSTs (0: no
                                              rate), POSTs open at most (0: any number)
``postbacks:routes``                  hash    account -> where its postbacks go (``queue/routes.py``)
``postbacks:gone``                    zset    accounts that are gone; score is when what waits for them ends
``postbacks:rates``                   hash    account -> us of the broker's clock from which its next POST counts
``postbacks:aside``                   zset    lanes that wait for their account's rate, and accounts and endpoints that
                                              lanes wait for room at; score is when they are looked at again
``postbacks:waits:{place}``           zset    lanes that wait for a POST of this account, or to this endpoint, to end;
                                              score is since when, in us
``postbacks:endpoints``               hash    endpoint -> POSTs open to it, counted while there is a limit
``postbacks:starts``                  hash    endpoint that has failed to connect -> since (ms when it last took a
                                              connection, or first did not), last (ms when a POST there began or
                                              ended), limit (POSTs open at most in its slow start, 0: any number), up
                                              (0/1: it took the last one), tried (ms when the last POST began that had
                                              no connection in time), by (its account)
``postbacks:ready:trusted``           zset    lanes that may be claimed from and answered 200 in time the
                                              last time; score is the virtual time of their turn
``postbacks:ready:suspect``           zset    lanes that may be claimed from and are new, slow or failing; a new
                                              one's score is the ms at which it came, negative: the latest is first
``postbacks:turns``                   hash    trusted, suspect: virtual time of the last turn of each ring; examined: ms when
                                              an examiner last looked
``postbacks:parked``                  zset    ids that wait for a countdown; score is when it ends
``postbacks:quarantine``              zset    ids that were in flight when their process died; score is how they
                                              are tried: 0 or 1 with a few others, 2 alone
``postbacks:claimers``                zset    tokens of delivering loops (a UUID, @, the version); score is when
                                              the lease ends, 0 if it was seen to die
``postbacks:claims:{token}``          hash    id -> 0 if it is only held, 1 if its POST may have begun, 2 if it is
                                              in flight alone
``postbacks:sequence``                hash    account -> number of its latest postback
``postbacks:backlog``                 hash    account -> postbacks that wait, are sent or are parked
``postbacks:done``                    zset    delivered, skipped and cancelled ids; score is since when
``postbacks:dead``                    zset    dead ids; score is since when
``postbacks:unrouted``                zset    of the dead those that came for an account that was not known, or without a
                                              URL; score is since when
``postbacks:unrouted-bytes``          string  of the next their part
``postbacks:ledger-bytes``            string  estimate of the memory that all records take
``postbacks:unrouted-logged:{account}``  string  stands for the minute in which no further line is logged of it
``postbacks:left``                    zset    accounts that are gone; score is since when; for a week
``postbacks:totals``                  hash    counts over all workers since the broker's data began: attempt:OUTCOME,
                                              answer:BUCKET, answer_ms, posts, connections, dead, ticks,
                                              late_ticks, id_taken (``delivery/tally.py``)
``postbacks:accounts``                hash    account -> its settings as JSON
``postbacks:last-tick``               string  when a tick last finished
``postbacks:ticks``                   hash    version of postbacks -> when a tick of it last finished
``postbacks:url-policies``            zset    which networks, ports and schemes a worker sends to (JSON); score is when a worker
                                              last said so; what is older than a minute is dropped
``postbacks:task-events``             string  where task events go (JSON); stands while a worker sends them
``postbacks:task-events:meter``       hash    level (share of postbacks that are shown: 1 / 2 ** level), room, at_ms
``postbacks:task-events:levels``      zset    ``ms:level``, each change of the level; score is since when
``postbacks:task-events:failed:{s}``  string  failures of that second that wanted to be shown
====================================  ======  ==========================================================
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "postbacks:"

#: Celery's queue that applications publish to. No worker of ours consumes it; the tick takes it in.
QUEUE: Final = "postbacks"
#: Celery's queue of our workers. Not ``celery``: a worker would take another application's tasks.
WORK_QUEUE: Final = "postbacks.work"
#: kombu's Redis transport keeps one list a priority step, 0 (the queue's own name) before 3, 6 and 9
#: (kombu 5.7, ``Channel._q_for_pri``).
QUEUE_LISTS: Final = (QUEUE, *(f"{QUEUE}\x06\x16{step}" for step in (3, 6, 9)))

INTAKE: Final = PREFIX + "intake"
INTAKE_LEASE: Final = PREFIX + "intake-lease"
READY_TRUSTED: Final = PREFIX + "ready:trusted"
READY_SUSPECT: Final = PREFIX + "ready:suspect"
TURNS: Final = PREFIX + "turns"
PARKED: Final = PREFIX + "parked"
QUARANTINE: Final = PREFIX + "quarantine"
PACING: Final = PREFIX + "pacing"
ROUTES: Final = PREFIX + "routes"
GONE: Final = PREFIX + "gone"
RATES: Final = PREFIX + "rates"
ASIDE: Final = PREFIX + "aside"
ENDPOINTS: Final = PREFIX + "endpoints"
STARTS: Final = PREFIX + "starts"
CLAIMERS: Final = PREFIX + "claimers"
SEQUENCE: Final = PREFIX + "sequence"
BACKLOG: Final = PREFIX + "backlog"
DONE: Final = PREFIX + "done"
DEAD: Final = PREFIX + "dead"
LEDGER_BYTES: Final = PREFIX + "ledger-bytes"
UNROUTED: Final = PREFIX + "unrouted"
UNROUTED_BYTES: Final = PREFIX + "unrouted-bytes"
LEFT: Final = PREFIX + "left"
ACCOUNTS: Final = PREFIX + "accounts"
LAST_TICK: Final = PREFIX + "last-tick"
TOTALS: Final = PREFIX + "totals"
TICKS: Final = PREFIX + "ticks"
URL_POLICIES: Final = PREFIX + "url-policies"
TASK_EVENTS_ON: Final = PREFIX + "task-events"
TASK_EVENTS_METER: Final = PREFIX + "task-events:meter"
TASK_EVENTS_LEVELS: Final = PREFIX + "task-events:levels"

# Prefixes: scripts meet ids and lanes that their caller cannot know, so they get these as keys.
RECORD: Final = PREFIX + "record:"
LANE: Final = PREFIX + "lane:"
PACE: Final = PREFIX + "pace:"
CLAIMS: Final = PREFIX + "claims:"
TASK_EVENTS_FAILED: Final = PREFIX + "task-events:failed:"
WAITS: Final = PREFIX + "waits:"
UNROUTED_LOGGED: Final = PREFIX + "unrouted-logged:"


def record(postback_id: str) -> str:
    """Key of a postback's record."""
    return RECORD + postback_id


def lane(name: str) -> str:
    """Key of a lane's list of waiting ids; the name is ``account/group``."""
    return LANE + name


def lane_name(account: str, group: str) -> str:
    """Name of the lane of an account's group."""
    return f"{account}/{group}"


def claims(token: str) -> str:
    """Key of the claims that one delivering loop holds."""
    return CLAIMS + token
