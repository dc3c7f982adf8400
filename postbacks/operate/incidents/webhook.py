"""Webhook of notices: a duty that sends what is stored, again and again until it has arrived or a day is over.

A notice goes out with the headers of Standard Webhooks, as a postback does, and its id stays the same: whoever gets it
twice can tell. Any status of 200 to 299 counts: unlike customers' receivers, those of notices are often somebody else's.
"""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Any, Final

from standardwebhooks import Webhook

from postbacks.broker.clock import now_ms
from postbacks.broker.errors import broker_errors
from postbacks.delivery.request import USER_AGENT, signature
from postbacks.history.transactions import reading
from postbacks.killpoints import reach
from postbacks.logs import EventLog
from postbacks.operate.incidents import store
from postbacks.transport.client import CurlClient
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer
from postbacks.urls import redacted

if TYPE_CHECKING:
    import redis

    from postbacks.history.recorder import Recorder
    from postbacks.operate.incidents.store import Notice
    from postbacks.settings import Settings
    from postbacks.transport.outcomes import Outcome

log = EventLog(__name__)

#: Seconds until it is looked for new notices.
EVERY_S: Final = 2.0
#: Seconds from a failure to the next attempt: doubled each time, up to the most.
BACKOFF_S: Final = 5
BACKOFF_MAX_S: Final = 600
#: Time after which a notice is given up.
GIVE_UP_MS: Final = 86_400_000
#: Seconds after which it is logged again that notices do not arrive.
LOG_AGAIN_S: Final = 3600.0
#: Characters of a fault that are kept.
FAULT_MAX: Final = 300
_ANYWHERE: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class NoticeSender:
    """Duty that sends notices to ``POSTBACKS_NOTICE_URL``.

    Args:
        recorder: the recorder beside which it works.
        client: the broker's, for its clock.
        settings: URL and secret.
        clock_offset_ms: added to the broker's clock, so that tests can move time.
    """

    name = "notices"

    def __init__(
        self, recorder: Recorder, client: redis.Redis, settings: Settings, *, clock_offset_ms: int = 0
    ) -> None:
        self._recorder = recorder
        self._client = client
        self._settings = settings
        self.clock_offset_ms = clock_offset_ms
        secret = settings.notice_secret.get_secret_value()
        self._profile = Profile(
            settings.connect_timeout_s,
            settings.answer_timeout_s,
            signers=(Webhook(secret),) if secret else (),
        )
        self._logged_s = float("-inf")

    def turn(self) -> float:
        """Send the oldest notice that is due; return the seconds until the next one may be.

        Raises:
            BrokerError: the broker cannot be asked for the time.
            HistoryError: the database cannot be used; the notice is sent again later.
        """
        if not self._settings.notice_url:
            return EVERY_S
        at_ms = self._now_ms()
        with reading(self._recorder.engine) as connection:
            notice, next_ms = store.due(connection, at_ms)
        if notice is None:
            return EVERY_S if next_ms is None else max(0.0, min(EVERY_S, (next_ms - at_ms) / 1000))
        outcome = self._post(notice, at_ms)
        reach("after:notice-post")
        self._note(notice, outcome, at_ms)
        return 0.0

    def _now_ms(self) -> int:
        with broker_errors():
            return now_ms(self._client) + self.clock_offset_ms

    def _post(self, notice: Notice, at_ms: int) -> Outcome:
        body = notice.body.encode()
        lines = ["Content-Type: application/json", f"User-Agent: {USER_AGENT}"]
        if self._profile.signers:
            lines += signature(notice.notice_id, at_ms, body, self._profile)
        else:
            lines.append(f"webhook-id: {notice.notice_id}")
        curl = CurlClient(reaching_anywhere(self._settings))
        try:
            return curl.post(Transfer(self._settings.notice_url, body, lines, self._profile))
        finally:
            curl.close()

    def _note(self, notice: Notice, outcome: Outcome, at_ms: int) -> None:
        attempts = notice.attempts + 1
        if outcome.status is not None and 200 <= outcome.status < 300:
            self._write(notice, {"state": store.SENT, "attempts": attempts, "done_ms": at_ms, "fault": None})
            return
        fault = (
            f"answered {outcome.status}" if outcome.status else (outcome.detail or outcome.name)[:FAULT_MAX]
        )
        where = redacted(self._settings.notice_url)
        if at_ms - notice.at_ms >= GIVE_UP_MS:
            self._write(
                notice, {"state": store.GIVEN_UP, "attempts": attempts, "done_ms": at_ms, "fault": fault}
            )
            log.error(
                "notice.given_up",
                f"it did not arrive for a day: {fault}. `postbacks incident show {notice.incident}` has it",
                incident=notice.incident,
                notice=notice.notice_id,
                url=where,
                attempts=attempts,
            )
            return
        wait_s = min(BACKOFF_MAX_S, BACKOFF_S << min(notice.attempts, 10))
        self._write(notice, {"attempts": attempts, "next_ms": at_ms + wait_s * 1000, "fault": fault})
        if time.monotonic() - self._logged_s >= LOG_AGAIN_S:
            self._logged_s = time.monotonic()
            log.warning(
                "notice.failed",
                f"{fault}. It is sent again for a day; see POSTBACKS_NOTICE_URL and its receiver",
                incident=notice.incident,
                notice=notice.notice_id,
                url=where,
                next_s=wait_s,
            )

    def _write(self, notice: Notice, values: dict[str, Any]) -> None:
        with self._recorder.transaction() as connection:
            store.update_notice(connection, notice.id, values)


def reaching_anywhere(settings: Settings) -> Settings:
    """Return the settings with which a notice is sent: its URL is the operator's, and may be of the own network.

    Networks that are denied stay so, and the proxy is gone through.
    """
    return settings.model_copy(update={"allowed_networks": _ANYWHERE, "allowed_ports": ((1, 65_535),)})
