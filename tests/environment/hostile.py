"""An environment that would break postbacks if it were read: every variable of variables.txt that can be set."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("variables.txt")


class Variable(NamedTuple):
    """A line of variables.txt."""

    name: str
    effect: str
    where: str


def committed() -> list[Variable]:
    """Return the lines of variables.txt."""
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return [Variable(*(cell.strip() for cell in line.split(" | "))) for line in lines]


#: No number, no boolean, no level of a log, no module, no queue that anybody consumes, no file that can be written.
NONSENSE = "no/such thing"
#: What is read has to be something that Celery can read; it is as far from the default as it may be.
SANE = {
    "CELERY_NO_COLOR": "1",
    "CELERY_QUIET": "1",
    "CELERY_SKIP_CHECKS": "1",
    "NO_COLOR": "1",
    "SKIP_CHECKS": "1",
    "AUTOSCALE_KEEPALIVE": "1",
    "CELERY_BENCH_EVERY": "7",
    "CELERY_RDB_PORT": "1",
    "CELERY_WORKER_REVOKES_MAX": "1",
    "CELERY_WORKER_REVOKE_EXPIRES": "1",
    "CELERY_WORKER_SUCCESSFUL_EXPIRES": "1",
    "CELERY_WORKER_SUCCESSFUL_MAX": "1",
    "C_BENCH_EVERY": "7",
    "C_WNOCONF": "1",
    "PICKLE_PROTOCOL": "2",
    "REMAP_SIGTERM": "SIGQUIT",
}
#: Not set: what ends Celery before postbacks is loaded, what Celery 5.7 itself fails with, and the terminal's.
LEFT_OUT = {"CELERY_VERSION", "CELERY_WORKDIR", "CELERY_BENCH", "C_BENCH", "C_IMPDEBUG", "TERM"}


def environment() -> dict[str, str]:
    """Return the hostile variables; Flower's own mean what they say."""
    names = [line.name for line in committed() if line.effect != "flower" and not line.name.startswith("?")]
    return {name: SANE.get(name, NONSENSE) for name in names if name not in LEFT_OUT}


def fatal() -> dict[str, str]:
    """Return what ends Celery's command line before it loads postbacks; `postbacks up` leaves it out."""
    names = [line.name for line in committed() if line.effect in {"first", "refused"}]
    return dict.fromkeys(names, NONSENSE) | {"CELERY_VERSION": "1"}
