"""``postbacks history run`` whose clock for incidents is faster: five quiet minutes are two seconds, and so on."""

from __future__ import annotations

from postbacks.cli import main
from postbacks.operate.incidents import course, finder

course.QUIET_MS = 2000
finder.EVERY_S = 0.5
finder.SAVE_AFTER_MS = finder.REFINE_AFTER_MS = 1000

if __name__ == "__main__":
    main(["history", "run"], prog_name="postbacks")
