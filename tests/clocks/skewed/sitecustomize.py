"""Imported by Python before anything else where this folder is on its path: the process's clock is wrong by SKEW_S."""

import datetime as dt
import os
import time

_SKEW_S = float(os.environ["SKEW_S"])
_time, _time_ns, _real = time.time, time.time_ns, dt.datetime


class _Datetime(_real):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.now(dt.UTC).replace(tzinfo=None)


time.time = lambda: _time() + _SKEW_S
time.time_ns = lambda: _time_ns() + int(_SKEW_S * 1e9)
dt.datetime = _Datetime
