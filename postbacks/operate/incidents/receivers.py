"""Conditions of receivers: endpoints at which every attempt fails, whatever accounts send there.

A look asks the broker for its failing lanes, in pages of ``PAGE`` and ``PAGES_MAX`` at most, each some milliseconds. What
a sentence has besides (why, how many opt-outs, when the first dies) comes from the history, for ``ACCOUNTS_MAX`` accounts
and ``ROWS_MAX`` rows of each, and only when something is told or an incident's words are old.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select

from postbacks import keys
from postbacks.broker import lua
from postbacks.broker.client import text
from postbacks.broker.errors import broker_errors
from postbacks.history import schema
from postbacks.history.transactions import reading
from postbacks.ledger import states
from postbacks.ledger.record import iso
from postbacks.monitor import moments
from postbacks.operate.incidents import words
from postbacks.operate.incidents.conditions import Condition, Incomplete
from postbacks.ping.diagnose import advise
from postbacks.queue import pauses, routes
from postbacks.retry import countdown_ms
from postbacks.urls import read_url

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from postbacks.operate.incidents.conditions import Look
    from postbacks.operate.incidents.store import Incident

KIND: Final = "endpoint"
#: Seconds for which every attempt must have failed, so that an endpoint that fails now and then is none of these.
STANDS_AFTER_S: Final = 60
#: Failing lanes that one call of the script goes over, about, and calls of a look: 20,000 lanes.
PAGE: Final = 100
PAGES_MAX: Final = 200
#: Endpoints that have incidents at most, those first that have failed for the longest.
ENDPOINTS_MAX: Final = 5000
#: Accounts that are named and looked up, and rows of each.
ACCOUNTS_MAX: Final = 20
ROWS_MAX: Final = 200
#: Endpoints at which nothing waits that are looked up at a look, and the newest postbacks that are asked whom they answer.
SILENT_MAX: Final = 50
NEWEST_MAX: Final = 20_000
#: Dead ones that are counted at an incident's end.
DEAD_MAX: Final = 100_000
#: Opt-outs that are counted.
OPT_OUTS_MAX: Final = 1000
_DELIVERED: Final = schema.OUTCOMES["delivered"]
_OUTCOME_NAMES: Final = {number: name for name, number in schema.OUTCOMES.items()}


@dataclass(slots=True)
class _Account:
    """Failing lanes that an account has at one endpoint.

    Attributes:
        since_ms: since when the first of them has failed.
        dead: of the account, since then.
        units: what is open in these lanes, in units: large postbacks count more than once.
        failing: how many they are, of those with anything open.
        lanes: lanes of the account with anything open.
        backlog: postbacks of the account that are open.
    """

    since_ms: int
    dead: int = 0
    units: int = 0
    failing: int = 0
    lanes: int = 0
    backlog: int = 0

    @property
    def is_exact(self) -> bool:
        """True where all that the account has open is in these lanes."""
        return self.failing == self.lanes

    @property
    def waiting(self) -> int:
        """Postbacks that are open in these lanes, at most."""
        return self.backlog if self.is_exact else min(self.units, self.backlog)


class _Failed(NamedTuple):
    """Attempt that failed: when it began, and the status of its answer, 0 where none came."""

    sent_ms: int
    status: int


class Failure(NamedTuple):
    """Failure of an endpoint as the history knows it.

    Attributes:
        outcome: of most of the latest attempts; empty where the history has none.
        status: of the answer, 0 where none came.
        detail: the outcome in words.
        opt_outs: opt-outs among what waits, ``OPT_OUTS_MAX`` at most; None where nobody has asked.
        first_dies_ms: when the first postback will have had its last attempt, at the earliest; None where none has failed.
    """

    outcome: str = ""
    status: int = 0
    detail: str = ""
    opt_outs: int | None = None
    first_dies_ms: int | None = None


class Receivers:
    """Source of the endpoints at which every attempt has failed for a while. It remembers which of them answer others."""

    def __init__(self) -> None:
        self._answered_ms: dict[str, int] = {}
        self._failed: dict[str, _Failed] = {}

    def __call__(self, look: Look) -> Iterator[Condition]:
        """Yield what stands.

        Raises:
            Incomplete: more lanes or endpoints fail than a look goes over.
            BrokerError: the broker cannot be asked.
            HistoryError: the database cannot be used.
        """
        endpoints, is_complete = _read(look)
        is_complete = is_complete and len(endpoints) <= ENDPOINTS_MAX
        first = heapq.nsmallest(
            ENDPOINTS_MAX, endpoints, key=lambda name: min(one.since_ms for one in endpoints[name].values())
        )
        conditions = {name: _condition(look, name, endpoints[name]) for name in first}
        self._remember(look, conditions)
        yield from (condition for name, condition in conditions.items() if not self._is_over(name))
        if not is_complete:
            raise Incomplete("more lanes or endpoints fail than a look goes over")

    def _remember(self, look: Look, conditions: Mapping[str, Condition]) -> None:
        """Remember of endpoints at which nothing waits what failed there last, and when the latest came that they answered."""
        silent = {name: one for name, one in conditions.items() if not one.figures["waiting"]}
        self._failed = {name: failed for name, failed in self._failed.items() if name in silent}
        self._answered_ms = {name: ms for name, ms in self._answered_ms.items() if name in silent}
        if not silent:
            return
        with reading(look.engine) as connection:
            for name, answered_ms in _answered(connection).items():
                if name in silent:
                    self._answered_ms[name] = max(answered_ms, self._answered_ms.get(name, 0))
            unknown = [condition for name, condition in silent.items() if name not in self._failed]
            for condition in unknown[:SILENT_MAX]:
                if (failed := _last_failed(connection, condition)) is not None:
                    self._failed[condition.subject] = failed

    def _is_over(self, name: str) -> bool:
        """Tell whether an endpoint answers others, though the last POST of some accounts failed there.

        An account of which all has died sends nothing until its next event, and its lane counts as failing for a day. A
        status of 400 to 499 is the account's own matter.
        """
        failed = self._failed.get(name)
        if failed is None or 400 <= failed.status < 500:
            return False
        return self._answered_ms.get(name, 0) > failed.sent_ms

    def ending(self, look: Look, incident: Incident) -> Ending:
        """Say how the incident of a failing endpoint has ended, and how what died of it is sent again."""
        is_well = self._is_over(incident.subject) or _any_is_well(look, incident)
        return _ending(look, incident, is_well=is_well)


def _read(look: Look) -> tuple[dict[str, dict[str, _Account]], bool]:
    """Read endpoint -> account -> its failing lanes there; and True if these are all."""
    script = lua.load("queue/_shared", "queue/_routes", "operate/incidents/failing")
    stands_ms = int(min(STANDS_AFTER_S, look.settings.incident_after_s) * 1000)
    endpoints: dict[str, dict[str, _Account]] = {}
    seen: set[bytes] = set()
    cursor = b"0"
    for _ in range(PAGES_MAX):
        arguments = (look.clock_offset_ms, cursor, PAGE, stands_ms)
        with broker_errors():
            reply: Any = look.client.eval_ro(script.text, len(script.keys), *script.keys, *arguments)
        cursor, rows = reply
        for lane, since, name, units, dead, backlog, lanes in rows:
            if lane in seen or not name:  # ZSCAN may give one twice
                continue
            seen.add(lane)
            since_ms = int(float(since))
            of_endpoint = endpoints.setdefault(text(name), {})
            account = of_endpoint.setdefault(text(lane).rpartition("/")[0], _Account(since_ms))
            account.since_ms = min(account.since_ms, since_ms)
            account.dead = max(account.dead, dead)
            account.units += units
            account.failing += units > 0
            account.lanes, account.backlog = lanes, backlog
        if cursor == b"0":
            return endpoints, True
    return endpoints, False


def _condition(look: Look, name: str, of_endpoint: Mapping[str, _Account]) -> Condition:
    settings = look.settings
    accounts = sorted(of_endpoint, key=lambda account: (of_endpoint[account].since_ms, account))
    since_ms = of_endpoint[accounts[0]].since_ms
    waiting = sum(account.waiting for account in of_endpoint.values())
    dead = sum(account.dead for account in of_endpoint.values())
    has_failed_long = look.now_ms - since_ms >= settings.incident_after_s * 1000
    plain = Condition(
        kind=KIND,
        subject=name,
        title=f"{words.host(name)} fails",
        sentence="",
        advice="",
        opens=has_failed_long or waiting + dead >= settings.incident_after_postbacks,
        size=waiting + dead,
        level=int(dead > 0),
        since_ms=since_ms,
        accounts=tuple(accounts[:ACCOUNTS_MAX]),
        figures={
            "accounts": len(accounts),
            "waiting": waiting,
            "waiting_is_exact": all(account.is_exact for account in of_endpoint.values()),
            "dead": dead,
            "outcome": None,
            "status": None,
            "opt_outs": None,
            "first_dies": None,
        },
    )
    return replace(
        _explained(look, plain, Failure()), refine=lambda: _explained(look, plain, _ask(look, plain))
    )


def _explained(look: Look, condition: Condition, failure: Failure) -> Condition:
    """Put a condition into words, with what is known of its failure."""
    figures, now_ms = dict(condition.figures), look.now_ms
    since = moments.minute(condition.since_ms or now_ms, now_ms)
    why = words.cause(failure.outcome, failure.status, failure.detail)
    clauses = [
        f"{why}; every attempt has failed since {since}" if why else f"every attempt has failed since {since}"
    ]
    if figures["accounts"] > 1:
        clauses.append(f"accounts {words.names(condition.accounts, figures['accounts'])}")
    about = "" if figures["waiting_is_exact"] else "up to "
    waiting = f"{about}{figures['waiting']:,} wait" if figures["waiting"] else "nothing waits"
    if figures["waiting"] == 1:
        waiting = "1 waits"
    if failure.opt_outs:
        more = "more than " * (failure.opt_outs > OPT_OUTS_MAX)
        waiting += f", {more}{words.count(min(failure.opt_outs, OPT_OUTS_MAX), 'opt-out')} among them"
    clauses.append(waiting)
    if figures["dead"]:
        clauses.append(f"{figures['dead']:,} have died" if figures["dead"] > 1 else "1 has died")
    elif failure.first_dies_ms is not None and figures["waiting"]:
        clauses.append(f"the first dies at {moments.minute(max(failure.first_dies_ms, now_ms), now_ms)}")
        figures["first_dies"] = iso(failure.first_dies_ms)
    figures |= {
        "outcome": failure.outcome or None,
        "status": failure.status or None,
        "opt_outs": failure.opt_outs,
    }
    return replace(
        condition, sentence="; ".join(clauses), advice=_advice(condition, failure), figures=figures
    )


def _advice(condition: Condition, failure: Failure) -> str:
    todo = (
        advise(failure.outcome, failure.status, failure.detail.partition(" (")[0]) if failure.outcome else ""
    )
    account, figures = condition.accounts[0], condition.figures
    parts = [todo, f"`postbacks ping {account}` tries it and says more."]
    if figures["accounts"] == 1 and figures["waiting"]:
        parts.append(f"`postbacks account pause {account}` keeps what waits from dying.")
    if figures["dead"]:
        parts.append("What has died can be sent again once it works: the notice of the end has the command.")
    return " ".join(filter(None, parts))


def _ask(look: Look, condition: Condition) -> Failure:
    with reading(look.engine) as connection:
        opt_outs = _count_opt_outs(connection, condition.subject)
        rows = _rows(connection, condition)
        if not rows:
            return Failure(opt_outs=opt_outs)
        (outcome, status), _ = Counter((row.outcome, row.status) for row in rows).most_common(1)[0]
        latest = max(
            (row for row in rows if (row.outcome, row.status) == (outcome, status)),
            key=lambda row: row.sent_ms or 0,
        )
        attempts = schema.attempts.c
        detail = connection.execute(
            select(attempts.detail)
            .where(attempts.row_id == latest.row_id)
            .order_by(attempts.number.desc())
            .limit(1)
        ).scalar()
    left_ms = countdown_ms(look.settings)
    dies_ms = [
        row.sent_ms + (look.settings.max_resends + 1 - row.failures) * left_ms
        for row in rows
        if row.state <= schema.LAST_OPEN and row.failures and row.sent_ms
    ]
    return Failure(
        _OUTCOME_NAMES.get(outcome, ""), status, detail or "", opt_outs, min(dies_ms, default=None)
    )


def _count_opt_outs(connection: Connection, endpoint: str) -> int:
    columns = schema.postbacks.c
    waiting = (
        select(columns.row_id)
        .where(schema.OPT_OUT, schema.UNDELIVERED, schema.OPEN)
        .where(
            columns.endpoint.in_(select(schema.endpoints.c.id).where(schema.endpoints.c.endpoint == endpoint))
        )
        .limit(OPT_OUTS_MAX + 1)
    )
    return int(connection.execute(select(func.count()).select_from(waiting.subquery())).scalar_one())


def _rows(connection: Connection, condition: Condition) -> list[Any]:
    """Read the oldest that are open of each account, and where none has failed the newest of all."""
    columns = schema.postbacks.c
    wanted = select(
        columns.row_id,
        columns.state,
        columns.outcome,
        columns.status,
        columns.failures,
        columns.sent_ms,
        columns.endpoint,
    )
    endpoint = connection.execute(
        select(schema.endpoints.c.id).where(schema.endpoints.c.endpoint == condition.subject)
    ).scalar()
    accounts = connection.execute(
        select(schema.accounts.c.id).where(schema.accounts.c.name.in_(condition.accounts))
    ).scalars()
    rows: list[Any] = []
    for account in accounts.all():
        of_account = wanted.where(columns.account == account)
        is_open = of_account.where(schema.OPEN).order_by(columns.accepted_ms).limit(ROWS_MAX)
        newest = of_account.order_by(columns.accepted_ms.desc()).limit(ROWS_MAX)
        for query in (is_open, newest):
            found = [
                row
                for row in connection.execute(query)
                if row.endpoint == endpoint and row.outcome and row.outcome != _DELIVERED
            ]
            rows += found
            if found:
                break
    return rows


def _answered(connection: Connection) -> dict[str, int]:
    """Read when the latest delivered one was accepted by its endpoint, of the newest postbacks of all."""
    columns = schema.postbacks.c
    newest = (
        select(columns.endpoint, columns.accepted_ms, columns.state)
        .order_by(columns.accepted_ms.desc())
        .limit(NEWEST_MAX)
        .subquery()
    )
    query = (
        select(schema.endpoints.c.endpoint, func.max(newest.c.accepted_ms))
        .join(newest, newest.c.endpoint == schema.endpoints.c.id)
        .where(newest.c.state == schema.STATES[states.DELIVERED])
        .group_by(schema.endpoints.c.endpoint)
    )
    return {name: int(ms) for name, ms in connection.execute(query)}


def _last_failed(connection: Connection, condition: Condition) -> _Failed | None:
    """Read what failed last at an endpoint, of the account that has failed there for the longest."""
    rows = _rows(connection, replace(condition, accounts=condition.accounts[:1]))
    return max((_Failed(row.sent_ms, row.status) for row in rows if row.sent_ms), default=None)


# -- the end ---------------------------------------------------------------------------------------


class Ending(NamedTuple):
    """Words of an incident's end.

    Attributes:
        sentence: what has become of it.
        advice: what is left to do; empty for nothing.
        resend: command that sends again what died of it; empty where nothing did.
        figures: in numbers.
    """

    sentence: str
    advice: str = ""
    resend: str = ""
    figures: dict[str, Any] = {}  # noqa: RUF012 - never changed


def _ending(look: Look, incident: Incident, *, is_well: bool) -> Ending:
    accounts = incident.accounts
    since_ms = incident.since_ms or incident.course.opened_ms
    lasted = f"after {moments.duration(look.now_ms - incident.course.quiet_ms - since_ms)}"
    if is_well:
        sentence = f"it answers 200 again, {lasted}"
    elif why := _why_still(look, accounts[0]):
        sentence = f"nothing is tried there any more, {lasted} of failures: account {accounts[0]} {why}"
    else:
        sentence = f"nothing is sent there any more, {lasted} of failures"
    is_one = int(incident.figures.get("accounts", 1)) == 1
    dead, first_ms = _dead(look, incident, since_ms, of_account=is_one)
    if not dead:
        return Ending(f"{sentence}; nothing of it is dead", figures={"dead": 0})
    whose = f"--account {accounts[0]}" if is_one else f"--host {read_url(incident.subject).host}"
    between = f"{words.iso_second(first_ms)} {words.iso_second(look.now_ms, up=True)}"
    more = "more than " * (dead > DEAD_MAX)
    resend = f"postbacks resend {whose} --state dead --between {between}"
    died = f"{sentence}; {more}{min(dead, DEAD_MAX):,} died"
    return Ending(died, f"Send again what died: `{resend}`.", resend, {"dead": dead})


def _dead(look: Look, incident: Incident, since_ms: int, *, of_account: bool) -> tuple[int, int]:
    """Count what died since an endpoint failed, and find when the first of it was accepted: that may be earlier."""
    columns, life_ms = schema.postbacks.c, (look.settings.max_resends + 1) * countdown_ms(look.settings)
    names, of = (
        (schema.accounts, incident.accounts[0]) if of_account else (schema.endpoints, incident.subject)
    )
    name, number = (names.c.name, columns.account) if of_account else (names.c.endpoint, columns.endpoint)
    died = (
        select(columns.accepted_ms)
        .where(schema.TROUBLED)
        .where(columns.accepted_ms.between(since_ms - life_ms, look.now_ms))
        .where(number == select(names.c.id).where(name == of).scalar_subquery())
        .where(columns.state == schema.STATES[states.DEAD])
        .where(columns.ended_ms >= since_ms)
        .order_by(columns.accepted_ms)
        .limit(DEAD_MAX + 1)
        .subquery()
    )
    with reading(look.engine) as connection:
        dead, first_ms = connection.execute(select(func.count(), func.min(died.c.accepted_ms))).one()
    return int(dead), since_ms if first_ms is None else int(first_ms)


def _any_is_well(look: Look, incident: Incident) -> bool:
    """Tell whether a lane of the incident's accounts that goes to its endpoint was answered 200 last."""
    lanes = [(account, group) for account in incident.accounts for group in keys.GROUPS]
    with broker_errors():
        rows: Any = look.client.hmget(keys.ROUTES, incident.accounts)
        pipe = look.client.pipeline(transaction=False)
        for account, group in lanes:
            pipe.hget(keys.LANE_STATE + keys.lane_name(account, group), "failing")
        replies = pipe.execute()
    row_of = dict(zip(incident.accounts, rows, strict=True))
    return any(
        reply == b"0" and routes.endpoint_in(row_of[account], group) == incident.subject
        for (account, group), reply in zip(lanes, replies, strict=True)
    )


def _why_still(look: Look, account: str) -> str:
    """Say why an account stands still; empty where it does not."""
    if account in pauses.read(look.client, [account]):
        return "is paused"
    with broker_errors():
        _, state = routes.since_and_state(look.client.hget(keys.ROUTES, account))  # type: ignore[arg-type]
    return routes.STILL_WORDS.get(state, "")
