"""Options that choose postbacks by what the history knows of them: the same for every command that searches it."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from postbacks.cli.base import Option, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from postbacks.history.query import Query
    from postbacks.history.times import Window

_WHICH: Final = "Which postbacks"
_WHEN: Final = "When they were accepted"
_VALUES: Final = "What was in them"

#: Difference between two clocks that is worth a word.
_CLOCKS_DIFFER_MS: Final = 1000


def _words(parameter: str) -> list[str]:
    """Return the words that an option takes, for the completion of shells."""
    from postbacks.catalogue import EVENTS, ORIGINS
    from postbacks.ledger import states
    from postbacks.transport.outcomes import OUTCOMES

    return {
        "state": [*states.STATES, states.HELD, "forgotten"],
        "outcome": [*OUTCOMES],
        "group": [*dict.fromkeys(ORIGINS.values())],
        "origin": [*ORIGINS],
        "code": sorted({code for _, code in EVENTS}),
    }[parameter]


def _complete(_: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [word for word in _words(str(param.name)) if word.startswith(incomplete)]


def _duration(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    from postbacks.history.times import duration_ms

    return None if value is None else duration_ms(value)


def _option(section: str, flag: str, metavar: str, text: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(flag, cls=Option, section=section, metavar=metavar, help=text, **more)


_OPTIONS: Final = (
    _option(_WHICH, "--account", "NAME", "Of this account."),
    _option(_WHICH, "--group", "WORD", "general, mo, mt or pass.", shell_complete=_complete),
    _option(
        _WHICH, "--origin", "WORD", "SMS_MO, MMS_MT, …: see `postbacks codes`.", shell_complete=_complete
    ),
    _option(_WHICH, "--code", "WORD", "N211, N402, …", shell_complete=_complete),
    _option(
        _WHICH,
        "--state",
        "WORD",
        "delivered, dead, skipped, cancelled; waiting, held, sending, parked; forgotten.",
        shell_complete=_complete,
    ),
    click.option("--dead", cls=Option, section=_WHICH, is_flag=True, help="Short for --state dead."),
    click.option(
        "--opt-outs",
        cls=Option,
        section=_WHICH,
        is_flag=True,
        help="N302, N304 and messages that mean stop, with their age.",
    ),
    click.option(
        "--undelivered",
        cls=Option,
        section=_WHICH,
        is_flag=True,
        help="Whatever their state, not delivered.",
    ),
    _option(_WHICH, "--reason", "WORD", "Not delivered for this reason: refused, no_url, …"),
    _option(
        _WHICH,
        "--outcome",
        "WORD",
        "Of the latest POST: status, refused, dns, tls, …",
        shell_complete=_complete,
    ),
    _option(_WHICH, "--status", "NUMBER", "HTTP status of the latest answer.", type=int),
    _option(_WHICH, "--host", "NAME", "Sent to this host."),
    _option(_WHICH, "--attempts", "N", "Exactly so many POSTs were begun.", type=int),
    _option(
        _WHICH,
        "--slower-than",
        "TIME",
        "The latest POST took longer: 500ms, 2s.",
        callback=_duration,
    ),
    _option(_WHEN, "--since", "TIME", "2h, 14:00, yesterday, 2026-11-28, 2026-11-28T14:00+01:00."),
    _option(_WHEN, "--until", "TIME", "Before this time; a date's whole day."),
    _option(_WHEN, "--between", "TIME TIME", "Both at once: --between 14:00 15:00.", nargs=2, type=str),
    _option(_VALUES, "--tracking-id", "TEXT", "TRACKINGID, exactly."),
    _option(_VALUES, "--mms-id", "TEXT", "MMSID, exactly."),
    _option(_VALUES, "--number", "NUMBER", "Phone number of FROM, TO or MOBILE, in any spelling."),
    _option(_VALUES, "--email", "ADDRESS", "EMAIL, in any case."),
    _option(_VALUES, "--sub-id", "TEXT", "SUBID, exactly."),
    _option(_VALUES, "--serial-number", "TEXT", "SERIALNUMBER, exactly."),
)
#: Options whose value is the field of ``Query`` with their name.
_PLAIN: Final = (
    "account", "group", "origin", "code", "state", "reason", "outcome", "status", "host", "attempts", "tracking_id", "mms_id",
    "number", "email", "sub_id", "serial_number", "opt_outs", "undelivered",
)  # fmt: skip
_NEVER_EMPTY: Final = (
    "reason",
    "host",
    "tracking_id",
    "mms_id",
    "number",
    "email",
    "sub_id",
    "serial_number",
)


def history_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose postbacks; it is called with the keyword ``query``, a ``Query`` of them.

    Times are resolved before it is called, and said on stderr.
    """

    @wraps(command)
    def with_query(**parameters: Any) -> None:
        chosen = {
            name: parameters.pop(name)
            for name in (*_PLAIN, "dead", "slower_than", "since", "until", "between")
        }
        # The broker alone knows postbacks by their end; without a history it alone is asked.
        is_of_end = parameters.get("all_dead", False)
        command(query=_query(chosen, is_of_end=is_of_end), **parameters)

    for option in reversed(_OPTIONS):
        with_query = option(with_query)
    return with_query


def _query(chosen: dict[str, Any], *, is_of_end: bool) -> Query:
    from postbacks.history.query import Query

    if chosen["dead"]:
        if chosen["state"] not in {None, "dead"}:
            raise click.UsageError(
                f"--dead is --state dead, and --state {chosen['state']} is another: choose one."
            )
        chosen["state"] = "dead"
    for name in _NEVER_EMPTY:
        if chosen[name] == "":
            raise click.UsageError(
                f"An empty {flag_of(name)} is in no postback; give its text, or leave the option out."
            )
    window = _window(chosen["since"], chosen["until"], chosen["between"], is_of_end=is_of_end)
    return Query(
        **{name: chosen[name] for name in _PLAIN},
        slower_than_ms=chosen["slower_than"],
        since_ms=window.since_ms,
        until_ms=window.until_ms,
    )


def flag_of(name: str) -> str:
    """Return the option of a field of ``Query``."""
    return f"--{name.removesuffix('_ms').replace('_', '-')}"


def _window(
    since: str | None, until: str | None, between: tuple[str, str] | None, *, is_of_end: bool
) -> Window:
    """Resolve the times of the options, and say them."""
    from postbacks.history.times import window
    from postbacks.settings import load

    if between:
        if since is not None or until is not None:
            raise click.UsageError("--between is --since and --until at once: give it alone.")
        since, until = between
    clock = _Clock()
    resolved = window(since, until, clock)
    if words := resolved.words():
        verb = "Accepted" if load().history_url and not is_of_end else "Ended"
        say(f"{verb} {words}{clock.words}.")
    return resolved


class _Clock:
    """The present time: the broker's, by which postbacks are accepted, or this machine's where the broker is away.

    Attributes:
        words: which clock was read, where that makes a difference.
    """

    def __init__(self) -> None:
        self._now_ms: int | None = None
        self.words = ""

    def __call__(self) -> int:
        """Return the time at which the clock was first asked, in ms since the epoch."""
        if self._now_ms is None:
            self._now_ms = self._read()
        return self._now_ms

    def _read(self) -> int:
        import time

        from postbacks.broker.client import client
        from postbacks.broker.clock import now_ms
        from postbacks.broker.errors import broker_errors
        from postbacks.errors import BrokerError

        try:
            with broker_errors():
                broker_ms = now_ms(client())
        except BrokerError:
            self.words = ", by this machine's clock: the broker does not answer"
            return time.time_ns() // 1_000_000
        ahead_ms = broker_ms - time.time_ns() // 1_000_000
        if abs(ahead_ms) > _CLOCKS_DIFFER_MS:
            way = "ahead of" if ahead_ms > 0 else "behind"
            self.words = (
                f", by the broker's clock, which is {abs(ahead_ms) / 1000:,.0f} s {way} this machine's"
            )
        return broker_ms
