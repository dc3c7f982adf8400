"""Duty of the process that runs history: requests that a person be forgotten, one step a turn."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from postbacks.operate.forget.erasure import Erasure
from postbacks.operate.forget.request import Requests
from postbacks.operate.forget.rows import HistoryPart

if TYPE_CHECKING:
    import redis

    from postbacks.history.recorder import Recorder
    from postbacks.operate.forget.erasure import Steps
    from postbacks.settings import Settings

#: Seconds of work of a turn, and between two looks for a request.
WORK_S: Final = 0.5
LOOK_EVERY_S: Final = 1.0


class ForgetDuty:
    """Duty that goes on with every request there is.

    Args:
        recorder: the recorder beside which it works.
        client: the broker's client.
        settings: of this process.
    """

    name = "forget"

    def __init__(self, recorder: Recorder, client: redis.Redis, settings: Settings) -> None:
        self._recorder = recorder
        self._client = client
        self._settings = settings
        self._lease: int | None = None
        self._under_way: dict[str, Steps] = {}

    def turn(self) -> float:
        """Go on with each request; return the seconds until the next turn."""
        if self._lease != self._recorder.lease:  # another process may have gone on meanwhile
            self._lease = self._recorder.lease
            self._under_way.clear()
        requests = Requests(self._client).open()
        return min([LOOK_EVERY_S, *map(self._go_on, requests)])

    def _go_on(self, request: str) -> float:
        steps = self._under_way.pop(request, None) or self._begin(request)
        deadline_s = time.monotonic() + WORK_S
        wait_s = 0.0
        while not wait_s and time.monotonic() < deadline_s:
            try:
                wait_s = next(steps)
            except StopIteration:
                return 0.0
        self._under_way[request] = steps  # after an error it begins anew
        return wait_s

    def _begin(self, request: str) -> Steps:
        history = HistoryPart(self._recorder, self._client)
        return Erasure(self._client, self._settings, request, history).steps()
