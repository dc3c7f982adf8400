"""Remedy of an incident that has ended: the postbacks that died of it, as the query of a job."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from postbacks.history.query import Query

if TYPE_CHECKING:
    from postbacks.operate.incidents.store import Incident

_COMMAND: Final = ["postbacks", "resend"]


def resend_query(incident: Incident) -> Query | None:
    """Return what the command of an incident's end chooses; None where there is none, or a newer version's."""
    words = shlex.split(incident.resend)
    match words[2:]:
        case [("--account" | "--host") as flag, name, "--state", state, "--between", since, until]:
            if words[:2] != _COMMAND:
                return None
            query = Query(state=state, since_ms=_ms(since), until_ms=_ms(until))
            return replace(query, account=name) if flag == "--account" else replace(query, host=name)
    return None


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
