"""``postbacks list --follow``: print postbacks as they come and as they end, until Ctrl-C."""

from __future__ import annotations

import os
import select
import stat
import sys
from time import sleep
from typing import TYPE_CHECKING, Final

from postbacks.cli.base import say, stop_signals, stopping_afterwards
from postbacks.errors import BrokerError, HistoryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postbacks.cli.search import Printer
    from postbacks.history.follow import Follower
    from postbacks.history.query import Postback

_POLL_S: Final = 1.0


def follow(follower: Follower, latest: Sequence[Postback], printer: Printer) -> None:
    """Print the latest postbacks, and then what comes and what ends."""
    stop_signals()
    try:
        say("Ctrl-C ends it.")
        printer.print_lines(latest)
        trouble = ""
        while not _reader_is_gone():
            sleep(_POLL_S)
            found: list[Postback] = []
            try:
                try:
                    with stopping_afterwards():
                        found.extend(follower.poll())
                finally:  # the next poll yields none of these again
                    printer.print_lines(found)
            except (BrokerError, HistoryError) as error:
                if str(error) != trouble:
                    say(f"{error} It goes on as soon as that is over.")
                trouble = str(error)
            else:
                trouble = ""
    except KeyboardInterrupt:
        return


def _reader_is_gone() -> bool:
    """Tell whether stdout is a pipe that nobody reads any more: without a line to write, nothing else would say so."""
    try:
        pipe = sys.stdout.fileno()
        if not stat.S_ISFIFO(os.fstat(pipe).st_mode):
            return False
    except (OSError, ValueError):  # a test's stdout
        return False
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))
