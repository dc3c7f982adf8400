"""Notices: what is told of a change, as JSON for the webhook and as a line of the log."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from postbacks.ledger.record import iso
from postbacks.logs import EventLog, mask
from postbacks.operate.incidents import course, store
from postbacks.operate.incidents.store import Incident, Notice

if TYPE_CHECKING:
    from postbacks.settings import Settings

log = EventLog(__name__)


def make_notice(
    incident: Incident, change: str, now_ms: int, settings: Settings, *, untold: str = ""
) -> Notice:
    """Make the notice of a change.

    Args:
        incident: the incident behind its change.
        change: a word of ``course.CHANGES``.
        now_ms: when the change came.
        settings: whether there is a webhook.
        untold: state of a notice that is kept and not told, of ``store.UNTOLD``; empty for one that is told.
    """
    notice_id = str(uuid.uuid4())
    state = untold or (store.PENDING_STATE if settings.notice_url else store.LOG_ALONE)
    body = json.dumps(_body(notice_id, incident, change, now_ms), ensure_ascii=False)
    return Notice(
        notice_id=notice_id,
        incident=incident.id,
        change=change,
        at_ms=now_ms,
        body=body,
        is_logged=bool(untold),
        state=state,
        next_ms=now_ms,
    )


def _body(notice_id: str, incident: Incident, change: str, now_ms: int) -> dict[str, Any]:
    """Return what the webhook gets; docs/notice.schema.json describes it."""
    public = incident.to_public_dict()
    names = (
        "kind", "subject", "open", "title", "sentence", "advice", "resend", "since", "opened", "ended", "times_back",
        "accounts", "figures",
    )  # fmt: skip
    data = {name: public[name] for name in names}
    for name in ("sentence", "title"):
        data[name] = mask(data[name])
    return {
        "type": f"incident.{change}",
        "timestamp": iso(now_ms),
        "data": {"notice": notice_id, "incident": incident.id, **data},
    }


def write_to_log(notice: Notice) -> None:
    """Write the line of a notice: one event a change."""
    data = json.loads(notice.body)["data"]
    fields: dict[str, Any] = {
        "incident": notice.incident,
        "kind": data["kind"],
        "subject": data["subject"],
        "accounts": ",".join(data["accounts"][:10]) or None,
        "since": data["since"],
        "resend": data["resend"],
    }
    sentence = " ".join(filter(None, (f"{data['title']}: {data['sentence']}.", data["advice"])))
    if notice.change == course.OPENED:
        log.warning("incident.opened", sentence, **fields)
    elif notice.change == course.CAME_BACK:
        log.warning("incident.came_back", sentence, **fields)
    elif notice.change == course.GREW:
        log.warning("incident.grew", sentence, **fields)
    else:
        log.info("incident.recovered", sentence, **fields)
