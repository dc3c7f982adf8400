"""Keys in Redis that postbacks uses: the whole schema.

``{id}`` is a postback's id, ``{lane}`` is ``account/group`` and ``{token}`` one run of a delivering
loop. Lanes, claims and the parked set hold ids only; the postback itself lives once, in its record.
All times are milliseconds of the broker's clock. ``bound`` says how much may stand under a key, or when
what stands there goes. Constants bear the names of the keys, but for four that explain themselves:
``LANE_STATE`` (``pace``), ``RING_CLOCK`` (``turns``), ``DELAYED`` (``aside``), ``WAITING_FOR_ROOM`` (``waits``).
Scripts name keys by these constants (``broker/lua.py``).

====================================  ======  ==========================================================
key                                   type    meaning
====================================  ======  ==========================================================
``postbacks`` and sub-lists           list    messages as Celery publishes them; kombu splits a queue by
                                              priority; pushed left, so the oldest is the rightmost
                                              bound: until a tick takes them; the broker's memory, past which
                                              a call raises
``postbacks.work``                    list    ``dispatch`` and ``deliver`` messages, the workers' queue
                                              bound: a tick, as beat sends none while it holds any, and the
                                              wake-ups of ticks (``MAX_WAKES``)
``postbacks:intake``                  list    messages that a tick has taken and not yet accepted
                                              bound: ``POSTBACKS_INTAKE_BATCH`` messages
``postbacks:intake-lease``            hash    token and expires_ms of the tick that holds the intake; deaths of
                                              ticks that held it, alone_deaths while they accepted its first
                                              alone, alone while one does
                                              bound: these fields
``postbacks:record:{id}``             hash    the ledger record (see ``ledger/record.py``)
                                              bound: one that waits until it ends; an ended one for its
                                              retention, done ones in their share of the memory; what an id
                                              that was cancelled before it came leaves, for its time
``postbacks:lane:{lane}``             list    ids that wait, oldest left
                                              bound: records that wait
``postbacks:pace:{lane}``             hash    state of a lane: claimed (ids in claims), limit (POSTs that may be open),
                                              failing (0/1: its last POST failed), suspect (0/1: it was slow or failed),
                                              tag (virtual time of its next turn), held (claimed ids without a POST),
                                              behind (1: what waits there may have waited for its receiver or its
                                              account's own rate)
                                              bound: a day after the last of its claims has ended
``postbacks:failing``                 zset    lanes whose last POST failed (of some it no longer did: the lane's state says);
                                              score is since when every attempt has failed
                                              bound: lanes that fail, and those that did within a day or
                                              so: each new one has another one looked at
``postbacks:pacing``                  hash    account -> what it has of its own, packed (``_pacing.lua``): weight, us between
                                              two POSTs (0: no rate), POSTs open at most (0: any number)
                                              bound: as ``postbacks:routes``
``postbacks:routes``                  hash    account -> where its postbacks go (``queue/routes.py``)
                                              bound: accounts of the store; a tick looks two old rows up, and
                                              one that is gone goes when nothing of it is open
                                              (``retire.lua``)
``postbacks:paused``                  zset    accounts that are paused; score is when the pause ends, infinite without an end
                                              bound: accounts of the store
``postbacks:pauses``                  hash    account -> since when it is paused (ms), when that ends (ms, or ``-``), and the
                                              reason and who paused it as JSON (``queue/pauses.py``)
                                              bound: as ``postbacks:paused``
``postbacks:gone``                    zset    accounts that are gone; score is when what waits for them ends
                                              bound: as ``postbacks:routes``
``postbacks:rates``                   hash    account -> us of the broker's clock at which its next POST counts
                                              bound: accounts in ``postbacks:pacing``
``postbacks:aside``                   zset    lanes that wait for their account's rate, and accounts and endpoints where
                                              lanes wait for room; score is when they are looked at again
                                              bound: lanes that wait, and accounts and endpoints where they do,
                                              until they are looked at
``postbacks:waits:{owner}``           zset    lanes that wait for a POST of this account, or to this endpoint, to end;
                                              score is since when, in us
                                              bound: lanes that wait
``postbacks:endpoints``               hash    endpoint -> POSTs open to it, counted while there is a limit
                                              bound: endpoints with POSTs open
``postbacks:starts``                  hash    endpoint that has failed to connect -> packed (``_slow_start.lua``,
                                              ``queue/slow_start.py``): since (ms when it last took a
                                              connection, or first did not), last (ms when a POST there began or
                                              ended), limit (POSTs open at most in its slow start, 0: any number), up
                                              (0/1: it took the last one), tried (ms when the last POST began that had
                                              no connection in time), by (its account)
                                              bound: endpoints of the last day or so: each new one has two
                                              others looked at
``postbacks:ready:trusted``           zset    lanes that may be claimed from and whose last POST was answered 200 in time;
                                              score is the virtual time of their turn
                                              bound: lanes that wait
``postbacks:ready:suspect``           zset    lanes that may be claimed from and are new, slow or failing; a new
                                              one's score is the ms at which it came, negative: the latest is first
                                              bound: lanes that wait
``postbacks:turns``                   hash    trusted, suspect: virtual time of the last turn of each ring; examined: ms when
                                              an examiner last looked; emptied: when a tick last found nothing to take in
                                              bound: these fields
``postbacks:parked``                  zset    ids that wait for a countdown; score is when it ends
                                              bound: records that are parked
``postbacks:quarantine``              zset    ids that were in flight when their process died; score is how they
                                              are tried: 0 or 1 with a few others, 2 alone
                                              bound: records in flight when a process died
``postbacks:claimers``                zset    tokens of delivering loops (a UUID, @, the version, @, the worker); score is when
                                              the lease ends, 0 if it was seen to die
                                              bound: loops that run, or died within a lease
``postbacks:claims:{token}``          hash    id -> 0 if it is only held, 1 if its POST may have begun, 2 if it is
                                              in flight alone
                                              bound: what its loop has open and holds; until the loop ends or
                                              its lease does
``postbacks:sequence``                hash    account -> number of its latest postback
                                              bound: accounts of the last day or so, unknown names among them
                                              (``forget.lua``)
``postbacks:backlog``                 hash    account -> postbacks that wait, are sent or are parked
                                              bound: accounts with such records
``postbacks:open``                    hash    lane -> its postbacks that wait, are sent or are parked, in units: one each,
                                              and one more for each further 2 KB of the record
                                              bound: lanes with such records
``postbacks:done``                    zset    delivered, skipped and cancelled ids; score is since when
                                              bound: records, as long as they stand
``postbacks:dead``                    zset    dead ids; score is since when
                                              bound: records, as long as they stand
``postbacks:dead-of:{account}``       zset    dead ids of one account that have their document; score is since when, and
                                              10^14 more of opt-outs, which are dropped last
                                              bound: the account's share of the memory
``postbacks:stubs-of:{account}``      zset    stubs of one account; score as above
                                              bound: the account's share of the memory
``postbacks:dead-bytes``              zset    accounts; score is the bytes that their dead and their stubs take
                                              bound: accounts with dead records
``postbacks:unrouted``                zset    dead ids that came for an account that was not known, or without a URL; score is
                                              since when, and 10^14 more of opt-outs
                                              bound: a day of them, in a twentieth of the ledger's memory
``postbacks:unrouted-bytes``          string  estimate of the memory that those records take
                                              bound: one number
``postbacks:ledger-bytes``            string  estimate of the memory that all records take
                                              bound: one number
``postbacks:unrouted-logged:{account}``  string  there while no further line is logged of the account's unrouted postbacks
                                              bound: a minute each
``postbacks:dead-logged:{account}``   string  there while no further line is logged of the account's many dead
                                              bound: a minute each
``postbacks:left``                    zset    accounts that are gone; score is since when; for a week
                                              bound: a week, at the next removal
``postbacks:totals``                  hash    counts over all workers since the broker's data began: attempt:OUTCOME,
                                              answer:BUCKET, answer_ms, first:GROUP:BUCKET, first_ms:GROUP,
                                              posts, connections, dead, accepted:GROUP, skipped,
                                              refused:REASON, put_off:REASON, ticks, late_ticks, id_taken
                                              (``queue/counter_names.py``), stubs, dead_dropped, early_done,
                                              early_dead, asked_dropped, unrouted, unrouted_of_left,
                                              unrouted_dropped, unrecorded_dropped
                                              bound: names that the code has
``postbacks:accounts``                hash    account -> its settings as JSON
                                              bound: accounts that somebody has set, until they are removed
``postbacks:last-tick``               string  when a tick last finished
                                              bound: one time
``postbacks:ticks``                   hash    version of postbacks -> when a tick of it last finished
                                              bound: versions that have run on this broker
``postbacks:url-policies``            zset    which networks, ports and schemes a worker sends to (JSON); score is when a worker
                                              last said so; what is older than a minute is dropped
                                              bound: settings that differ, of a minute
``postbacks:workers``                 zset    worker processes (seconds after which one counts as gone, a token, the version,
                                              the node name); score is when it last gave a sign of life, negative if
                                              it has ended in order
                                              bound: those heard of within ten minutes
``postbacks:beats``                   zset    beats, in the same form
                                              bound: those heard of within ten minutes
``postbacks:changes``                 stream  the feed: ids of postbacks that have changed, an entry a script call with
                                              the field ids, separated by spaces (``_changes.lua``); the feed is on
                                              while the key exists
                                              bound: ``POSTBACKS_HISTORY_FEED_SHARE`` of the memory; a week after
                                              the last sign of a recorder it goes (``limit_changes.lua``)
``postbacks:history``                 hash    what recorders and ticks note of the feed: on_ms since when it is on; off_ms,
                                              off_reason since when and why it is off; seen_ms last sign of a
                                              recorder; token, ends_ms the recorder that holds the lease, and its
                                              end; gaps, gap_entries, gap_ms how often entries were dropped
                                              unread, how many, and when last; resync why a resync is wanted
                                              (absent: none is), unrecorded_ms from when on what has ended may
                                              not be recorded then, again that another one is wanted than that
                                              under way; resynced_ms when one last ended; trimmed_id the latest entry
                                              that was recorded; silent that the feed ended by itself;
                                              recorder what the latest one does (JSON, ``history/status.py``)
                                              bound: these fields
``postbacks:journal``                 stream  the journal's entries until a recorder has copied them, or, where the feed is off, a
                                              tick has logged them: at_ms, entry (JSON, ``ledger/journal.py``)
                                              bound: 10,000 of 5 KB; what comes beyond them is logged alone
``postbacks:feed-logged:{what}``      string  there while no further line is logged of a gap in the feed
                                              bound: a minute
``postbacks:forgets``                 zset    requests that a person be forgotten and that are under way; score is since when
                                              bound: such requests
``postbacks:forget:{request}``        hash    such a request (``operate/forget/request.py``): kind and hash of the person's
                                              value until its end, the pseudonym, how far it is, and what was reached
                                              bound: these fields; a week after its end
``postbacks:forget-messages:{request}``  set  ids of messages that waited to be taken in when it came
                                              bound: messages of one person; until its end
``postbacks:privacy-key``             string  key of the suffixes with which numbers are masked (``privacy/key.py``)
                                              bound: one key
``postbacks:web-key``                 string  key that signs the dashboard's sessions and links (``web/security/key.py``)
                                              bound: one key
``postbacks:web-ended``               zset    ids of the dashboard's sessions that were logged out; score is when they would have
                                              ended by themselves
                                              bound: logouts of ``POSTBACKS_WEB_SESSION_S``
``postbacks:web-links``               zset    ids of the customers' links that are open (``operate/links.py``); score is when each ends
                                              bound: twenty an account; those that have ended, until the next is made
``postbacks:web-links-used``          zset    the same ids; score is when a page was last opened by each, 0 for never
                                              bound: as ``postbacks:web-links``
``postbacks:web-link:{link}``         string  such a link (JSON): account, by, made_ms, ends_ms, may_resend
                                              bound: until the link ends
``postbacks:web-pinged:{account}``    string  there while no customer's link can ping the account again
                                              bound: 10 s after a ping has ended; 3 minutes where its process died
``postbacks:jobs``                    zset    ids of resend and cancel jobs (``operate/jobs/``); score is when they were asked for
                                              bound: those that have not ended, and the latest hundred of a month
``postbacks:job:{job}``               hash    a job: kind, by, why, query (filters as JSON), ids (how many were given one by one),
                                              from (states that it moves from), rate and interval_us between two moves (absent:
                                              no rate), next_us of the next, asked_ms, state, paused_by, note, total,
                                              frozen_ms, ended_ms, and its counts (``_job.lua``)
                                              bound: as ``postbacks:jobs``
``postbacks:job-ids:{job}``           list    ids that it was given one by one
                                              bound: until they are frozen
``postbacks:job-parts:{job}``         hash    account -> its part of the job, its cursor among it (JSON, ``_job.lua``)
                                              bound: accounts of its set; as ``postbacks:jobs``
``postbacks:job-open:{job}``          hash    id that it has moved and that is not answered -> attempts before, account
                                              bound: 10,000
``postbacks:probe``                   list    a write to it that changes nothing is refused as a postback is
                                              bound: never there
``postbacks:task-events``             string  where task events go (JSON); there while a worker publishes them
                                              bound: 30 s
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
RING_CLOCK: Final = PREFIX + "turns"
PARKED: Final = PREFIX + "parked"
QUARANTINE: Final = PREFIX + "quarantine"
FAILING: Final = PREFIX + "failing"
PACING: Final = PREFIX + "pacing"
ROUTES: Final = PREFIX + "routes"
GONE: Final = PREFIX + "gone"
PAUSED: Final = PREFIX + "paused"
PAUSES: Final = PREFIX + "pauses"
RATES: Final = PREFIX + "rates"
DELAYED: Final = PREFIX + "aside"
ENDPOINTS: Final = PREFIX + "endpoints"
STARTS: Final = PREFIX + "starts"
CLAIMERS: Final = PREFIX + "claimers"
SEQUENCE: Final = PREFIX + "sequence"
BACKLOG: Final = PREFIX + "backlog"
DONE: Final = PREFIX + "done"
DEAD: Final = PREFIX + "dead"
DEAD_BYTES: Final = PREFIX + "dead-bytes"
OPEN: Final = PREFIX + "open"
LEDGER_BYTES: Final = PREFIX + "ledger-bytes"
UNROUTED: Final = PREFIX + "unrouted"
UNROUTED_BYTES: Final = PREFIX + "unrouted-bytes"
LEFT: Final = PREFIX + "left"
ACCOUNTS: Final = PREFIX + "accounts"
LAST_TICK: Final = PREFIX + "last-tick"
TOTALS: Final = PREFIX + "totals"
TICKS: Final = PREFIX + "ticks"
URL_POLICIES: Final = PREFIX + "url-policies"
WORKERS: Final = PREFIX + "workers"
BEATS: Final = PREFIX + "beats"
CHANGES: Final = PREFIX + "changes"
HISTORY: Final = PREFIX + "history"
FORGETS: Final = PREFIX + "forgets"
PRIVACY_KEY: Final = PREFIX + "privacy-key"
WEB_KEY: Final = PREFIX + "web-key"
WEB_ENDED: Final = PREFIX + "web-ended"
WEB_LINKS: Final = PREFIX + "web-links"
WEB_LINKS_USED: Final = PREFIX + "web-links-used"
JOBS: Final = PREFIX + "jobs"
JOURNAL: Final = PREFIX + "journal"
PROBE: Final = PREFIX + "probe"
TASK_EVENTS_ON: Final = PREFIX + "task-events"

#: Groups that lanes are of (``catalogue/base.py``, which takes too long to import for a health check).
GROUPS: Final = ("general", "mo", "mt", "pass")

# Prefixes: scripts meet ids and lanes that their caller cannot know, so they get these as keys.
RECORD: Final = PREFIX + "record:"
LANE: Final = PREFIX + "lane:"
LANE_STATE: Final = PREFIX + "pace:"
CLAIMS: Final = PREFIX + "claims:"
WAITING_FOR_ROOM: Final = PREFIX + "waits:"
DEAD_OF: Final = PREFIX + "dead-of:"
STUBS_OF: Final = PREFIX + "stubs-of:"
UNROUTED_LOGGED: Final = PREFIX + "unrouted-logged:"
DEAD_LOGGED: Final = PREFIX + "dead-logged:"
FEED_LOGGED: Final = PREFIX + "feed-logged:"
JOB: Final = PREFIX + "job:"
JOB_IDS: Final = PREFIX + "job-ids:"
JOB_PARTS: Final = PREFIX + "job-parts:"
JOB_OPEN: Final = PREFIX + "job-open:"
FORGET: Final = PREFIX + "forget:"
FORGET_MESSAGES: Final = PREFIX + "forget-messages:"
WEB_LINK: Final = PREFIX + "web-link:"
WEB_PINGED: Final = PREFIX + "web-pinged:"


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


def by_name() -> dict[str, str | tuple[str, ...]]:
    """Return every key, prefix of keys and tuple of keys by the name of its constant, for scripts (``broker/lua.py``)."""
    return {
        name: key for name, key in globals().items() if name.isupper() and name not in {"PREFIX", "GROUPS"}
    }
