"""Signs of life: each worker and each beat tells the broker every few seconds that it runs.

A process that was killed or is frozen counts as gone ``POSTBACKS_GONE_AFTER_S`` after its last sign, one that ends in
order at once (``presence.py`` reads them). Version 0.1.0 gives none.
"""

from __future__ import annotations

import math
import time
import uuid
from typing import Final

from postbacks.broker import lua
from postbacks.broker.client import client_for
from postbacks.broker.errors import broker_errors
from postbacks.errors import BrokerError, BrokerUnfit
from postbacks.logs import EventLog
from postbacks.settings import load
from postbacks.version import VERSION

log = EventLog(__name__)

_SCRIPT: Final = lua.load("broker/sign_of_life", when_full=True)

#: Signs that a process gives in the time after which it counts as gone: two may be late.
SIGNS: Final = 3
#: Seconds that a sign may take: worker and beat do nothing else meanwhile.
WITHIN_S: Final = 1.0
#: Seconds after which a silent process is forgotten, by the next one that gives a sign.
KEPT_S: Final = 600.0


class SignOfLife:
    """The signs of one process.

    Args:
        key: ``keys.WORKERS`` or ``keys.BEATS``.
        name: the process's node name.
    """

    def __init__(self, key: str, name: str) -> None:
        settings = load()
        self.every_s: Final = settings.gone_after_s / SIGNS
        self._key = key
        # The token tells two processes of one name apart; the time-out travels along, so that readers need no setting.
        self._process = f"{settings.gone_after_s:g} {uuid.uuid4().hex[:8]} {VERSION} {name}"
        self._next_s = -math.inf
        self._given = False
        self._refused = False

    def give_when_due(self) -> None:
        """Give a sign where the last one is old enough; never raises."""
        if time.monotonic() >= self._next_s:
            self.give()

    def give(self) -> None:
        """Give a sign; where the broker does not take it, the next one is tried. Never raises."""
        self._next_s = time.monotonic() + self.every_s
        self._given = True
        self._tell(1)

    def withdraw(self) -> None:
        """Tell that this process ends in order, so that it counts as gone at once; never raises."""
        if self._given:
            self._given = False
            self._tell(-1)

    def _tell(self, sign: int) -> None:
        settings = load()
        try:
            with broker_errors():
                client = client_for(settings.broker_url, min(WITHIN_S, settings.broker_timeout_s))
                client.eval(_SCRIPT.text, 1, self._key, self._process, sign, int(KEPT_S * 1000))
            self._refused = False
        except BrokerError as error:
            if isinstance(error, BrokerUnfit) and not self._refused:
                self._refused = True
                log.warning("presence.not_told", f"{error} This process seems to be gone meanwhile.")
            else:
                log.debug("presence.not_told", str(error))
