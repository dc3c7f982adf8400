"""Calls of ``postbacks ping`` in this process, with short limits."""

from __future__ import annotations

import json

from click.testing import CliRunner
from helpers import environment

from postbacks.cli import main

#: Seconds of both limits; ping waits three times as long.
LIMIT_S = "0.4"


def call(*args, text="", **env):
    """Call ping and return what click saw."""
    limits = {"POSTBACKS_ANSWER_TIMEOUT_S": LIMIT_S, "POSTBACKS_CONNECT_TIMEOUT_S": LIMIT_S}
    with environment(**{**limits, **env}):
        return CliRunner().invoke(main, ["ping", *args], input=text, prog_name="postbacks")


def pinged(url, *args, code=1, **env):
    """Return the JSON of a ping, once its exit code is the right one and its words say the same."""
    shown = call(url, "--json", *args, **env)
    assert shown.exit_code == code, shown.output
    assert shown.stdout.count("\n") == 1
    result = json.loads(shown.stdout)
    assert result["delivered"] is (code == 0)
    return result
