"""Stage of the afternoon: the stack with its past, and what goes wrong on it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from benchmarks.afternoon import past
from benchmarks.afternoon.cast import ROLES, Account, Events, accounts
from benchmarks.afternoon.past import COUNTDOWN_MS, HOUR_MS, MINUTE_MS, POSTS_MAX, Outage
from benchmarks.afternoon.receivers import HOSTILE, Receivers, receivers
from benchmarks.scenario import until
from postbacks.devtools.receiver import Answer

if TYPE_CHECKING:
    import redis

    from postbacks.operate.incidents import Incident

SEED: Final = 19
_SETTINGS: Final = {
    "POSTBACKS_ALLOWED_NETWORKS": "127.0.0.0/8", "POSTBACKS_MAX_WAITING_PER_ACCOUNT": "300", "POSTBACKS_HEALTH_WAITING_AGE_S": "3600",
}  # fmt: skip
#: Messages and changes a second while the stage is lit.
_LIVE_PER_S: Final = 0.4
_DOWN: Final = (
    b'{"status": "error", "message": "Service temporarily unavailable: database maintenance until 17:00"}'
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Trouble of an account that lasts.

    Attributes:
        role: of the account.
        since_min: minutes for which it has stood.
        dead: postbacks that have died of it.
        open: postbacks that wait for their next POST.
        opt_outs: of those that are open.
    """

    role: str
    since_min: int
    dead: int
    open: int
    opt_outs: int = 0


TROUBLES: Final = (
    Trouble("unavailable", 52, 38, 96, 6),
    Trouble("expired", 190, 64, 22, 2),
    Trouble("no connection", 17, 0, 9),
    Trouble("no name", 26 * 60, 21, 3),
    Trouble("hostile", 34, 3, 12),
)
_PAUSED_MIN: Final = 46
_PAUSED: Final = 85
#: Postbacks of the account that gets more than its rate lets out, and minutes since when.
_FULL: Final = 330
_FULL_MIN: Final = 22


@dataclass(slots=True)
class Stage:
    """Stage that is lit.

    Attributes:
        url: of the dashboard's first page.
        env: variables with which a command reaches the stack.
        cast: its accounts.
        facts: what pictures are of: ``postback``, ``story``, ``incident``, ``job`` and so on, by id.
    """

    url: str
    env: dict[str, str]
    cast: list[Account]
    facts: dict[str, str] = field(default_factory=dict)


@contextmanager
def stage(folder: Path, *, port: int = 0, users: Path | None = None) -> Iterator[Stage]:
    """Light the stage.

    Args:
        folder: for the database, logs and certificates.
        port: of the dashboard; 0 takes a free one.
        users: file of the dashboard's users; None for no login.
    """
    from postbacks.devtools.embedded_broker import EmbeddedBroker
    from postbacks.devtools.stack import LocalStack, RecorderProcess, WebProcess

    cast = accounts(SEED)
    events = Events(cast, SEED)
    history_url = f"sqlite:///{folder}/history.db"
    with ExitStack() as running:
        broker = running.enter_context(EmbeddedBroker())
        client = running.enter_context(broker.client())
        played = running.enter_context(receivers(cast, ROLES, folder, SEED))
        env = {**_SETTINGS, **played.env, "POSTBACKS_BROKER_URL": broker.url}
        running.enter_context(_environment({**env, "POSTBACKS_HISTORY_URL": history_url}))
        begun_ms = time.time_ns() // 1_000_000
        _say("writes the past")
        count = past.write(history_url, events, played.port, _outages(), begun_ms)
        _say(f"has {count:,} postbacks of {past.HOURS} hours")
        _set_accounts(cast, played.port)
        _fail(played)
        with LocalStack(broker, env=env | {"POSTBACKS_MAX_RESENDS": "0"}, log_dir=folder):
            dead = _send_dead(events, cast, begun_ms)
            until(lambda: client.zcard("postbacks:dead") >= len(dead), 240, "the death of what has died")
        _say(f"let {len(dead)} postbacks die")
        _date_back(client, dead)
        stack = LocalStack(broker, workers=2, beats=2, env=env, log_dir=folder)
        running.enter_context(stack)
        stop = threading.Event()
        running.callback(stop.set)
        threading.Thread(target=_live, args=(Events(cast, SEED + 1), stop), daemon=True).start()
        open_ = _send_open(events, cast, begun_ms)
        until(lambda: _have_failed(client), 180, "the first failure of each account")
        time.sleep(12)  # so that most have failed once
        _date_back(client, open_)
        _set_since(client, begun_ms)
        _say(f"lets {len(open_)} postbacks wait")
        running.enter_context(
            RecorderProcess(
                env=env | {"POSTBACKS_HISTORY_URL": history_url}, log_path=folder / "recorder.log"
            )
        )
        listening = running.enter_context(socket.create_server(("127.0.0.1", port)))
        web_env = (
            env
            | {"POSTBACKS_HISTORY_URL": history_url}
            | ({"POSTBACKS_WEB_USERS": str(users)} if users else {})
        )
        web = running.enter_context(WebProcess(listening, env=web_env, log_path=folder / "web.log"))
        web.wait_for_log("http://", 60)
        made = Stage(f"http://127.0.0.1:{listening.getsockname()[1]}/", web_env, cast)
        _operate(made, begun_ms)
        yield made


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} The stage {words}.", flush=True)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    from tests import helpers

    ours = {name for name in os.environ if name.startswith("POSTBACKS_")} - values.keys()
    for name in ours:
        del os.environ[name]
    with helpers.environment(
        **{name: value for name, value in values.items() if name.startswith("POSTBACKS_")}
    ):
        yield


def _outages() -> list[Outage]:
    """Return what failed before, and what fails now: its past ends where that began."""
    lasting = [
        Outage(ROLES[trouble.role], trouble.since_min / 60, None, "status", 503, 30, "")
        for trouble in TROUBLES
    ]
    return [
        *lasting,
        Outage(ROLES["full"], _FULL_MIN / 60, None, "status", 503, 30, ""),
        Outage(ROLES["paused"], _PAUSED_MIN / 60, None, "status", 503, 30, ""),
        Outage(
            ROLES["recovered"],
            4.1,
            2.6,
            "status",
            503,
            44,
            "answered 503; only 200 counts",
            "upstream connect error",
        ),
        Outage(ROLES["resending"], 22.6, 17.4, "connect_timeout", None, 10_002, "no connection within 10 s"),
        Outage(
            ROLES["resent"],
            8.0,
            5.0,
            "status",
            401,
            80,
            "answered 401; only 200 counts",
            '{"error": "token expired"}',
        ),
    ]


def _set_accounts(cast: list[Account], port: int) -> None:
    from postbacks.testing.stack import store_account

    more: dict[str, dict[str, Any]] = {
        ROLES["unavailable"]: {"rate": "50/s"},
        ROLES["full"]: {"rate": "6/min"},
        ROLES["slow"]: {"answer_timeout_s": 20.0, "max_transfers": 4},
        ROLES["recovered"]: {"rate": "50/s", "headers": {"X-Tenant": "harborview"}},
        cast[0].name: {"weight": 2.0, "mo_url": cast[0].url(port).replace("/postbacks", "/inbound")},
    }
    for account in cast:
        url = None if account.name == ROLES["no url"] else account.url(port)
        store_account(account.name, url=url, **more.get(account.name, {}))


def _fail(played: Receivers) -> None:
    played.answers |= {
        ROLES["unavailable"]: Answer(503, _DOWN, {"content-type": "application/json"}, delay_s=0.03),
        ROLES["hostile"]: Answer(500, HOSTILE, {"content-type": "text/html; charset=utf-8"}, delay_s=0.05),
        ROLES["slow"]: Answer(200, b"OK", delay_s=6.5),
    }


def _send(
    events: Events, account: Account, times_ms: list[int], opt_outs: int = 0, kind: str = ""
) -> dict[str, int]:
    """Send events to an account; return their ids, each with the time at which it is to have been accepted."""
    from postbacks import send_postbacks

    chosen = [
        (
            at_ms,
            next(events.of(account, at_ms, "unsubscribed" if place % 2 and place // 2 < opt_outs else kind)),
        )
        for place, at_ms in enumerate(sorted(times_ms))
    ]
    ids = send_postbacks(account.name, [event for _, (_, event) in chosen])
    return {postback_id: at_ms for postback_id, (at_ms, _) in zip(ids, chosen, strict=True)}


def _spread(events: Events, count: int, begin_ms: int, end_ms: int) -> list[int]:
    return [events.random.randrange(begin_ms, end_ms) for _ in range(count)]


def _send_dead(events: Events, cast: list[Account], now_ms: int) -> dict[str, int]:
    by_name = {account.name: account for account in cast}
    life_ms = (POSTS_MAX - 1) * COUNTDOWN_MS + MINUTE_MS
    sent: dict[str, int] = {}
    for trouble in TROUBLES:
        begin_ms = now_ms - trouble.since_min * MINUTE_MS
        if trouble.dead:
            times_ms = _spread(events, trouble.dead, begin_ms, now_ms - life_ms)
            sent |= _send(events, by_name[ROLES[trouble.role]], times_ms, opt_outs=trouble.opt_outs // 3)
    return sent


def _send_open(events: Events, cast: list[Account], now_ms: int) -> dict[str, int]:
    from postbacks.operate import pause_account

    by_name = {account.name: account for account in cast}
    pause_account(
        ROLES["paused"],
        until_ms=now_ms + 95 * MINUTE_MS,
        reason="they move to a new data centre, ticket 4128",
        by="priya",
    )
    sent: dict[str, int] = {}
    for trouble in TROUBLES:
        begin_ms = now_ms - min(trouble.since_min, 23) * MINUTE_MS
        times_ms = _spread(events, trouble.open, begin_ms, now_ms - 20_000)
        sent |= _send(events, by_name[ROLES[trouble.role]], times_ms, opt_outs=trouble.opt_outs)
    paused_ms = now_ms - _PAUSED_MIN * MINUTE_MS
    sent |= _send(events, by_name[ROLES["paused"]], _spread(events, _PAUSED, paused_ms, now_ms), opt_outs=3)
    full_ms = _spread(events, _FULL, now_ms - _FULL_MIN * MINUTE_MS, now_ms - 1000)
    sent |= _send(events, by_name[ROLES["full"]], full_ms, kind="mt")
    _send(events, by_name[ROLES["slow"]], [now_ms] * 6)
    _send(events, by_name[ROLES["no url"]], [now_ms] * 3)
    return sent


def _have_failed(client: redis.Redis) -> bool:
    from postbacks import keys

    failing = {lane.decode().rpartition("/")[0] for lane in client.zrange(keys.FAILING, 0, -1)}
    return {ROLES[trouble.role] for trouble in TROUBLES} <= failing


def _date_back(client: redis.Redis, sent: Mapping[str, int]) -> None:
    """Let postbacks have been accepted earlier, and their one attempt have been made every five minutes since."""
    from postbacks import keys
    from postbacks.ledger.record import Attempt

    now_ms = time.time_ns() // 1_000_000
    for postback_id, accepted_ms in sent.items():
        key = keys.record(postback_id)
        fields = client.hgetall(key)
        changed: dict[str, Any] = {"created_ms": accepted_ms}
        note = fields.get(b"attempt:1")
        is_dead = fields.get(b"state") == b"dead"
        if note is not None and fields[b"attempts"] == b"1":
            latest = Attempt.from_json(note)
            ended_ms, attempts = 0, []
            for number in range(1, POSTS_MAX if not is_dead else POSTS_MAX + 1):
                at_ms = ended_ms + COUNTDOWN_MS if ended_ms else accepted_ms + 400
                if at_ms > now_ms:
                    break
                attempts.append(latest._replace(number=number, at_ms=at_ms))
                ended_ms = at_ms + latest.elapsed_ms
            count = len(attempts)
            changed |= {"attempts": count, "failures": count, "sent_ms": attempts[-1].at_ms}
            changed |= {f"attempt:{attempt.number}": attempt.to_json() for attempt in attempts}
            if is_dead:
                changed["ended_ms"] = ended_ms
                earlier_ms = ended_ms - float(fields[b"ended_ms"])
                client.zincrby(keys.DEAD, earlier_ms, postback_id)
                client.zincrby(keys.DEAD_OF + fields[b"account"].decode(), earlier_ms, postback_id)
            else:
                changed["next_ms"] = ended_ms + COUNTDOWN_MS
                client.zadd(keys.PARKED, {postback_id: changed["next_ms"]}, xx=True)
        client.hset(key, mapping=changed)


def _set_since(client: redis.Redis, now_ms: int) -> None:
    """Let each lane that fails have failed since its trouble began, and the pause stand since it was asked for."""
    from postbacks import keys

    since_ms = {ROLES[trouble.role]: now_ms - trouble.since_min * MINUTE_MS for trouble in TROUBLES}
    for lane in client.zrange(keys.FAILING, 0, -1):
        account = lane.decode().rpartition("/")[0]
        if account in since_ms:
            client.zadd(keys.FAILING, {lane: since_ms[account]}, xx=True)
    routes = {name: client.hget(keys.ROUTES, name).decode() for name in [*since_ms, ROLES["paused"]]}
    old_ms = now_ms - 40 * 24 * HOUR_MS
    for name, row in routes.items():
        first, rest = row.split("\n", 1)
        at_ms = now_ms - _PAUSED_MIN * MINUTE_MS if name == ROLES["paused"] else old_ms
        client.hset(keys.ROUTES, name, f"{at_ms} {first.partition(' ')[2]}".rstrip() + f"\n{rest}")
    _, until_and_said = client.hget(keys.PAUSES, ROLES["paused"]).decode().split(" ", 1)
    client.hset(keys.PAUSES, ROLES["paused"], f"{now_ms - _PAUSED_MIN * MINUTE_MS} {until_and_said}")


def _live(events: Events, stop: threading.Event) -> None:
    """Send what comes while the stage is lit, but not to those that stand still."""
    from postbacks import send_postbacks

    still = {ROLES["paused"], ROLES["no url"]}
    full = next(account for account in accounts(SEED) if account.name == ROLES["full"])
    while not stop.wait(events.random.expovariate(_LIVE_PER_S)):
        account = events.account()
        if events.random.random() < 0.25:  # more than its rate lets out
            send_postbacks(
                full.name, [event for _, event in events.of(full, time.time_ns() // 1_000_000, "mt")]
            )
        if account.name not in still:
            send_postbacks(
                account.name, [event for _, event in events.of(account, time.time_ns() // 1_000_000)]
            )


def _operate(made: Stage, now_ms: int) -> None:
    """Let people work: jobs, incidents that stand for a while, and one that has ended."""
    from postbacks import history
    from postbacks.history.query import Query
    from postbacks.operate import all_incidents, all_jobs
    from postbacks.operate.jobs.requests import start

    until(
        lambda: history.search(Query(account=ROLES["unavailable"], state="parked")).postbacks,
        120,
        "the record of all",
    )
    _say("is recorded")
    resent = Query(account=ROLES["resent"], state="dead", since_ms=now_ms - 12 * HOUR_MS)
    start("resend", resent, by="tom", why="their token is renewed, ticket 4119")
    start("resend", Query(account=ROLES["expired"], state="dead"), by="priya", why="they say it is renewed")
    until(
        lambda: all(not job.is_unended or job.state == "paused" for job in all_jobs()),
        120,
        "the end of two jobs",
    )
    resending = Query(account=ROLES["resending"], state="dead", since_ms=now_ms - 24 * HOUR_MS)
    job = start(
        "resend", resending, rate=0.5, by="maria", why="their gateway was down last night, ticket 4124"
    )
    made.facts["job"] = job.id
    until(lambda: len(all_incidents(open_only=True)) >= len(TROUBLES), 180, "the incidents")
    until(lambda: all(map(_has_reason, all_incidents(open_only=True))), 180, "their reasons")
    _date_incidents_back(now_ms)
    _name_facts(made)
    _say("is lit")


def _has_reason(incident: Incident) -> bool:
    return incident.kind != "endpoint" or not incident.sentence.startswith("every")


def _date_incidents_back(now_ms: int) -> None:
    """Let incidents have opened five minutes after their trouble began, and one have ended."""
    from postbacks import history
    from postbacks.history.engine import reader
    from postbacks.history.query import Query
    from postbacks.history.transactions import writing
    from postbacks.operate.incidents import store
    from postbacks.operate.incidents.course import Course
    from postbacks.operate.incidents.store import Incident
    from postbacks.operate.incidents.words import host, iso_second

    name = ROLES["recovered"]
    since_ms, ended_ms = now_ms - int(4.1 * HOUR_MS), now_ms - int(2.5 * HOUR_MS)
    dead = Query(
        account=name, state="dead", since_ms=since_ms - HOUR_MS, until_ms=ended_ms + 1000, limit=1000
    )
    number = len(history.search(dead).postbacks)
    between = f"{iso_second(since_ms - 10 * MINUTE_MS)} {iso_second(ended_ms, up=True)}"
    resend = f"postbacks resend --account {name} --state dead --between {between}"
    course = Course(
        since_ms + 5 * MINUTE_MS, ended_ms, ended_ms, 60, 1, quiet_ms=5 * MINUTE_MS, ended_ms=ended_ms
    )
    endpoint = f"https://{_host(name)}:443"
    ended = Incident(
        kind="endpoint", subject=endpoint, title=f"{host(endpoint)} fails", first_ms=course.opened_ms, course=course, since_ms=since_ms,
        sentence=f"it answers 200 again, after 1 h 30 min; {number:,} died", advice=f"Send again what died: `{resend}`.",
        resend=resend, size=60, accounts=(name,), figures={"accounts": 1, "dead": number}, refined_ms=ended_ms,
    )  # fmt: skip
    with writing(reader()) as connection:
        store.add(connection, [ended])
        connection.execute(
            text(
                "UPDATE incidents SET opened_ms = since_ms + 300000, first_ms = since_ms + 300000, told_ms = since_ms + 300000 "
                "WHERE kind = 'endpoint' AND ended_ms IS NULL AND since_ms IS NOT NULL"
            )
        )
        connection.execute(
            text(
                "UPDATE notices SET at_ms = (SELECT opened_ms FROM incidents WHERE incidents.id = notices.incident)"
            )
        )


def _host(name: str) -> str:
    return next(account.host for account in accounts(SEED) if account.name == name)


def _name_facts(made: Stage) -> None:
    """Find what pictures are of."""
    from postbacks import history
    from postbacks.history.query import Query
    from postbacks.operate import all_incidents, make_link
    from postbacks.operate.incidents.receivers import KIND
    from postbacks.settings import load
    from postbacks.web.security.key import Signers
    from postbacks.web.security.links import Links

    incidents = [incident for incident in all_incidents() if incident.kind == KIND]
    for role in ("unavailable", "hostile", "recovered"):
        found = next(incident for incident in incidents if incident.accounts[:1] == (ROLES[role],))
        made.facts[f"incident {role}"] = str(found.id)
    for name, query in {
        "parked": Query(account=ROLES["unavailable"], state="parked", attempts=4),
        "hostile": Query(account=ROLES["hostile"]),
        "delivered": Query(state="delivered", code="N202", account=ROLES["recovered"]),
        "resent": Query(account=ROLES["resent"], state="delivered", attempts=7),
    }.items():
        found_postbacks = history.search(query).postbacks
        if found_postbacks:
            made.facts[f"postback {name}"] = found_postbacks[0].id
    settings = load()
    link = make_link(
        ROLES["unavailable"], days=7, may_resend=True, by="tom", why="they ask what we get, ticket 4133"
    )
    made.facts["customer link"] = Links(settings, Signers(settings)).address(link, made.url.rstrip("/"))
    made.facts["now"] = datetime.now(UTC).isoformat(timespec="seconds")
