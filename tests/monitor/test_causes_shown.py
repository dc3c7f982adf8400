"""``postbacks show`` says why a postback has not been sent."""

from __future__ import annotations

import json

from click.testing import CliRunner
from events import EVENT as SUB

from postbacks import send_postbacks
from postbacks.cli import main
from postbacks.queue.actions import cancel


def show(*args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    done = CliRunner().invoke(main, ["show", *args], prog_name="postbacks")
    return done.exit_code, done.stdout, done.stderr


def test_show_says_why_under_the_state(world):
    """A clause a line; in JSON each with its figures; nothing of a postback that has ended."""
    *_, last = world.waiting(*[SUB] * 3)
    code, out, _ = show(last)
    lines = out.splitlines()
    assert (code, lines[1]) == (0, "state         waiting")
    assert lines[2] == "why           behind 2 of its account's postbacks in group general"
    assert lines[3].startswith(" " * 14 + "its lane is ready: 0 lanes before it among those that are new")
    assert lines[4].startswith("event ")
    _, out, _ = show(last, "--json")
    assert json.loads(out)["why"][0] == {
        "cause": "behind",
        "sentence": "behind 2 of its account's postbacks in group general",
        "ahead": 2,
        "exact": True,
        "group": "general",
    }
    cancel(last)
    _, out, _ = show(last)
    assert "\nwhy " not in out
    _, out, _ = show(last, "--json")
    assert json.loads(out)["why"] == []


def test_show_says_of_what_is_not_taken_in_where_it_waits(world):
    """An error still, with all that is known; in JSON as well."""
    postback_id, two = send_postbacks("acme", [SUB] * 2)
    code, out, err = show(two)
    assert (code, out) == (1, "")
    waits = "it waits in Celery's queue for a tick, 1 message before it"
    nobody = "no tick has ever finished; no worker has been heard of: start one (celery -A postbacks worker)"
    assert f"The ledger has no postback {two}: it is not taken in yet; {waits}; {nobody}; " in err
    code, out, _ = show(postback_id, "--json")
    public = json.loads(out)
    assert (code, public["id"], public["state"], public["why"][0]["ahead"]) == (1, postback_id, None, 0)
    _, _, err = show("nope")
    assert (
        "2 messages wait to be taken in, and it is none of the 2 looked at; no tick has ever finished" in err
    )
