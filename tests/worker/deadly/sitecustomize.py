"""Python runs this at its start where this folder is on its path: sending a postback of an account kills."""

import os
import signal

from postbacks.delivery.loop import DeliveryLoop

_begin = DeliveryLoop._begin


def _deadly_begin(self, claimed, profile):
    _begin(self, claimed, profile)
    if claimed.account == os.environ["DEADLY_ACCOUNT"]:
        os.kill(os.getpid(), signal.SIGSEGV)


DeliveryLoop._begin = _deadly_begin
