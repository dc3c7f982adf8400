"""Jobs on the command line: what they say first and ask, how they are followed, shown, paused and stopped."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from events import MT
from helpers import environment, eventually, set_account
from recording import end_lease, make_recorder, settle

from benchmarks import screens
from postbacks import keys, send_postbacks
from postbacks.broker.client import client
from postbacks.cli import main, progress
from postbacks.devtools.receiver import Answer, Receiver
from postbacks.history.engine import reader
from postbacks.operate.duties import duties_of
from postbacks.settings import load

pytestmark = pytest.mark.usefixtures("forked")


def call(*args: str, text: str | None = None):
    return CliRunner().invoke(main, args, input=text, prog_name="postbacks")


class World:
    """Tick, delivering loop, recorder and mover in one thread of this process, and a receiver that answers as it is told."""

    def __init__(self, rig, receiver, status) -> None:
        self.rig, self.receiver, self.status = rig, receiver, status
        self.recorder = make_recorder(rig.client, load().history_url)
        self.recorder.turn()
        (self.mover,) = (duty for duty in duties_of(self.recorder, client(), load()) if duty.name == "jobs")

    def turn(self) -> None:
        """Do what is to be done now."""
        self.rig.tick()
        self.rig.deliver()
        self.recorder.turn()
        self.mover.turn()

    @contextmanager
    def going(self) -> Iterator[None]:
        """Do so again and again in a thread of its own."""
        over = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                while not over.wait(0.01):
                    self.turn()
            except BaseException as error:
                failures.append(error)
                raise

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            assert failures == []

    def dead(self, account: str, count: int) -> list[str]:
        """Let so many postbacks of an account die, with an answer of 503."""
        set_account(account, url=self.receiver.url("/in"))
        self.status[0] = 503
        ids = send_postbacks(account, [MT] * count)
        for _ in range(4):
            self.rig.tick()
            self.rig.deliver()
        settle(self.recorder, self.rig.client)
        assert {self.rig.record(postback_id).state for postback_id in ids} == {"dead"}
        self.status[0] = 200
        return ids

    def ended(self, job_id: str) -> dict:
        """Turn until a job has ended; return it as ``job show --json`` prints it."""

        def look() -> dict | None:
            self.turn()
            job = shown(job_id)
            return job if job["ended"] else None

        return eventually(look, what="the end of the job")


def shown(job_id: str) -> dict:
    return json.loads(call("job", "show", job_id, "--json").stdout)


@pytest.fixture
def world(rig, tmp_path, monkeypatch) -> Iterator[World]:
    monkeypatch.setattr(progress, "_FROZEN_WITHIN_S", 0.5)
    monkeypatch.setattr(progress, "_POLL_S", 0.05)
    status = [200]
    with (
        environment(
            POSTBACKS_MAX_RESENDS="0",
            POSTBACKS_HISTORY_URL=f"sqlite:///{tmp_path}/history.db",
            POSTBACKS_USER="ann",
            TZ="UTC",
        ),
        Receiver(lambda _: Answer(status[0])) as receiver,
    ):
        rig.settings = load()
        made = World(rig, receiver, status)
        yield made
        made.recorder.close()
        reader().dispose()


class Terminal:
    """A command at a terminal."""

    def __init__(self, *args: str) -> None:
        self._ours, theirs = pty.openpty()
        # It takes the terminal as its own, so that Ctrl-C reaches it.
        program = (
            "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "from postbacks.cli import main; main(prog_name='postbacks')"
        )
        command = [sys.executable, "-c", program, *args]
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def wait_for(self, words: str) -> None:
        """Read until these words are shown."""
        while words not in self.shown:
            piece = self._read()
            assert piece, self.shown
            self.shown += piece

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Read until the command has ended; return its exit code."""
        while piece := self._read():
            self.shown += piece
        os.close(self._ours)
        return self._process.wait(60)

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65_536).decode(errors="replace")
        except OSError:  # Linux: the other side has ended
            return ""


# -- before a job ----------------------------------------------------------------------------------


def test_a_dry_run_says_how_many_of_whom_and_which_and_moves_nothing(world):
    ids = world.dead("acme", 12) + world.dead("beta", 3)
    done = call("resend", "--dead", "--dry-run")
    assert (done.exit_code, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert [line.split() for line in lines[:2]] == [["acme", "12"], ["beta", "3"]]
    assert lines[2] == "Some of them, the newest first:"
    assert lines[3].split() == ["accepted", "id", "account", "event", "state", "why"]
    assert lines[5].split()[2:] == [ids[-1], "beta", "SMS_MT", MT["CODE"], "dead", "answered", "503"]
    assert lines[-1] == "15 postbacks would be sent again."
    assert_is_screen("resend-dry-run", call("resend", "--account", "acme", "--dead", "--dry-run").stderr)
    public = json.loads(call("resend", "--account", "beta", "--dry-run", "--json").stdout)
    assert (public["total"], public["accounts"], len(public["sample"])) == (3, {"beta": 3}, 3)
    assert json.loads(call("resend", *ids[:4], "--dry-run", "--json").stdout)["total"] == 4
    assert world.rig.client.zcard(keys.DEAD) == 15
    assert call("jobs").stderr.startswith("There is no job: ")


def test_what_fits_nothing_says_why(world):
    world.dead("acme", 3)
    for args, sentence in (
        (("resend", "--account", "nobody", "--dead"), "Nothing fits: 3 dead, none of nobody."),
        (("resend", "--dead", "--code", "N211"), "Nothing fits: 3 dead, none of N211."),
        (("cancel", "--account", "acme"), "3 postbacks fit, and none of them is waiting, parked, held or sending: `postbacks list --account acme` shows them."),
        (("resend", "nobody-1", "nobody-2", "--dry-run"), "2 of the ids are left out: nobody knows them, or they are not dead or skipped."),
    ):  # fmt: skip
        done = call(*args)
        assert (done.exit_code, done.stdout) == (0, ""), done.output
        assert sentence in done.stderr
        assert done.stderr.splitlines()[-1].startswith("The history is recorded until ")


def test_bad_use_is_one_sentence_with_the_next_thing_to_try(world):
    world.dead("acme", 3)
    unknown = "There is no job '7c0e1f3a'; `postbacks jobs` lists them."
    for args, code, sentence in (
        (("resend", "--account", "acme", "--between", "25:00", "26:00"), 2, "'25:00' is no time: try 2h, 14:00"),
        (("resend", "--state", "parked"), 2, "What is parked cannot be sent again; name dead, skipped"),
        (("cancel", "--state", "dead"), 2, "What is dead cannot be cancelled; name waiting"),
        (("job", "show", "7c0e1f3a"), 1, unknown),
        (("job", "stop", "7c0e1f3a"), 1, unknown),
        (("resend", "--account", "acme"), 2, "There is no terminal to ask at: say --yes."),
    ):  # fmt: skip
        done = call(*args)
        assert done.exit_code == code, done.output
        assert sentence in done.stderr
    assert world.rig.client.zcard(keys.DEAD) == 3


def test_a_large_job_wants_its_number_typed_and_a_small_one_a_yes(world, monkeypatch):
    """Here without a terminal of its own; the next test has one."""
    world.dead("acme", 101)
    world.dead("beta", 2)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    number = "Send 101 postbacks again? Type the number to go on: "
    for answer, account in (("100", "acme"), ("y", "acme"), ("", "acme"), ("n", "beta")):
        done = call("resend", "--account", account, "--dead", text=f"{answer}\n")
        assert (number if account == "acme" else "Send 2 postbacks again? [y/N]: ") in done.output
        assert (done.exit_code, "Aborted!" in done.output) == (1, True)
    assert world.rig.client.zcard(keys.JOBS) == 0


# -- while it runs ---------------------------------------------------------------------------------


def test_on_a_terminal_a_bar_shows_how_far_it_is_until_the_end(world):
    world.dead("acme", 120)
    with world.going():
        terminal = Terminal("resend", "--account", "acme", "--dead", "--why", "their gateway was down")
        terminal.wait_for("Type the number to go on: ")
        terminal.type("120\n")
        assert terminal.end() == 0
    assert "120 of 120" in terminal.shown
    assert terminal.shown.endswith("120 of 120 postbacks put back: 120 delivered, 0 failed.\r\n")
    assert_is_screen("resend", screens.visible(terminal.shown))
    assert len(world.receiver.received) == 240


def test_ctrl_c_leaves_the_job_running_and_says_how_to_stop_it(world):
    world.dead("acme", 3)
    terminal = Terminal("resend", "--account", "acme", "--yes")
    terminal.wait_for("choosing")  # nobody moves it
    terminal.type("\x03")
    assert terminal.end() == 130
    (job,) = map(json.loads, call("jobs", "--json").stdout.splitlines())
    assert f"Job {job['id']} goes on. " in terminal.shown
    assert f"`postbacks job stop {job['id']}` stops it." in terminal.shown
    assert job["state"] == "asked"
    assert world.ended(job["id"])["delivered"] == 3


def test_without_a_terminal_the_id_is_printed_and_wait_waits_for_the_end(world):
    world.dead("acme", 3)
    begun = call("resend", "--account", "acme", "--why", "gateway", "--rate", "1000", "--yes")
    assert begun.exit_code == 0, begun.output
    job_id = begun.stdout.strip()
    job = world.ended(job_id)
    assert (job["by"], job["why"], job["total"], job["delivered"], job["filters"], job["rate"]) == (
        "ann", "gateway", 3, 3, {"account": "acme"}, 1000,
    )  # fmt: skip
    settle(world.recorder, world.rig.client)
    with world.going():
        waited = call("resend", "--account", "acme", "--state", "delivered", "--yes", "--wait", "--json")
    assert waited.exit_code == 0, waited.output
    assert json.loads(waited.stdout)["delivered"] == 3
    assert "3 of 3 postbacks put back: 3 delivered, 0 failed." in waited.stderr


def test_where_no_recorder_works_a_job_waits_and_says_so(world):
    world.dead("acme", 1)
    end_lease(world.rig.client)
    begun = call("resend", "--account", "acme", "--yes")
    assert (begun.exit_code, begun.stderr) == (
        0,
        "No recorder works now: the job goes on when `postbacks history run` does.\n",
    )
    assert shown(begun.stdout.strip())["waits"] == begun.stderr.strip()


def test_many_ids_and_all_dead_become_a_job_where_there_is_a_history(world):
    ids = world.dead("acme", 21)
    with world.going():
        done = call("resend", "-", "--yes", "--wait", text="\n".join(ids))
        assert (done.exit_code, "21 of 21 postbacks put back" in done.stderr) == (0, True), done.output
    assert call("job", "show", done.stdout.strip()).stdout.count("21 ids, given one by one") == 1
    world.dead("beta", 2)
    with world.going():
        done = call("resend", "--all-dead", "--account", "beta", "--since", "1h", "--yes", "--wait")
    assert done.exit_code == 0, done.output
    assert "Ended from " in done.stderr
    assert "2 of 2 postbacks put back: 2 delivered" in done.stderr


def test_ids_that_are_piped_or_whose_state_is_named_are_a_job_be_they_few(world):
    first, second = world.dead("acme", 2)
    asked = call("resend", "-", text=first)
    assert (asked.exit_code, "There is no terminal to ask at: say --yes." in asked.stderr) == (2, True)
    with world.going():
        assert call("resend", "-", "--yes", "--wait", text=first).exit_code == 0
    assert [job["total"] for job in map(json.loads, call("jobs", "--json").stdout.splitlines())] == [1]
    skipped = call("resend", second, "--state", "skipped")
    assert (skipped.exit_code, world.rig.record(second).state) == (0, "dead")
    assert "1 of the ids are left out: nobody knows them, or they are not skipped." in skipped.stderr


def test_what_is_left_out_of_ids_is_not_counted_before_a_job(world):
    ids = world.dead("acme", 3)
    with world.going():
        call("resend", *ids[:2], "--yes")
        eventually(lambda: world.rig.record(ids[1]).state == "delivered", what="its delivery")
    done = call("resend", "-", "--dry-run", text="\n".join([*ids, "nobody-1"]))
    assert done.stderr.splitlines()[0].startswith("3 of the ids are left out: ")
    assert done.stderr.splitlines()[-1] == "1 postback would be sent again."


def test_a_job_says_that_its_account_is_paused_and_masks_whom_it_chose(world):
    world.dead("acme", 2)
    call("account", "pause", "acme")
    with world.going():
        job_id = call("resend", "--number", MT["TO"], "--dead", "--yes").stdout.strip()
        eventually(lambda: shown(job_id)["state"] == "running", what="its begin")
        job = shown(job_id)
    assert job["waits"] == "Account acme is paused: `postbacks account resume acme` lets it go on."
    assert job["filters"]["number"].startswith("1555…02 ·")
    lines = call("job", "show", job_id).stdout
    assert (job["waits"] in lines, MT["TO"] in lines, "--number '1555…02 ·" in lines) == (True, False, True)


def test_what_another_job_has_is_refused_by_its_id(world, monkeypatch):
    world.dead("acme", 3)
    first = call("resend", "--account", "acme", "--rate", "0.01", "--yes").stdout.strip()
    eventually(lambda: world.turn() or shown(first)["state"] == "running", what="its begin")
    monkeypatch.setattr(progress, "_FROZEN_WITHIN_S", 30.0)
    with world.going():
        second = call("resend", "--dead", "--yes")
    assert second.exit_code == 1
    assert f"Error: Job {second.stdout.strip()} was refused. " in second.stderr
    assert (
        "what         resend of a set that was never chosen\n"
        in call("job", "show", second.stdout.strip()).stdout
    )
    assert first in second.stderr.splitlines()[-1]


def test_a_part_whose_receiver_fails_pauses_and_goes_on_when_it_is_asked(world):
    world.dead("acme", 60)
    world.status[0] = 503
    with world.going():
        paused = call("resend", "--account", "acme", "--dead", "--yes", "--wait")
        job_id = paused.stdout.strip()
        assert paused.exit_code == 1
        assert paused.stderr.splitlines().count("acme paused: 50 of 50 failed, 503") == 1
        assert f"is paused with 10 left: `postbacks job resume {job_id}` goes on" in paused.stderr
        with environment(COLUMNS="118", FORCE_COLOR="1"):
            assert_is_screen("job-show", screens.visible(call("job", "show", job_id).stdout))
        world.status[0] = 200
        assert call("job", "resume", job_id).stderr == f"Job {job_id} goes on with 10.\n"
        eventually(lambda: shown(job_id)["ended"], what="its end")
    lines = call("job", "show", job_id).stdout.splitlines()
    assert "outcome      60 of 60 postbacks put back: 10 delivered, 50 failed." in lines
    again = call("job", "stop", job_id)
    assert (again.exit_code, f"Job {job_id} is ended" in again.stderr) == (1, True)


def test_a_job_is_paused_and_stopped_and_says_what_is_left(world):
    world.dead("acme", 5)
    job_id = call("resend", "--account", "acme", "--rate", "0.01", "--yes").stdout.strip()
    eventually(lambda: world.turn() or shown(job_id)["state"] == "running", what="its begin")
    left = shown(job_id)["left"]
    assert call("job", "pause", job_id, "--why", "too early").stderr == (
        f"Job {job_id} is paused with {left} to go; `postbacks job resume {job_id}` goes on.\n"
    )
    assert "state        paused by ann" in call("job", "show", job_id).stdout
    stopped = call("job", "stop", job_id, "--json")
    assert stopped.stderr == f"Job {job_id} is stopped; {left} stay as they are.\n"
    assert json.loads(stopped.stdout)["state"] == "stopped"
    assert_is_screen("job-stop", stopped.stderr)
    assert call("job", "resume", job_id).exit_code == 1


def test_cancel_by_a_filter_is_a_job(world):
    set_account("acme", url=world.receiver.url())
    ids = send_postbacks("acme", [MT] * 4)
    world.rig.tick()
    settle(world.recorder, world.rig.client)
    job_id = call("cancel", "--account", "acme", "--yes").stdout.strip()

    def is_over() -> bool:
        world.recorder.turn()
        world.mover.turn()
        return shown(job_id)["ended"] is not None

    eventually(is_over, what="its end")
    assert {world.rig.record(postback_id).state for postback_id in ids} == {"cancelled"}
    assert "4 of 4 postbacks cancelled." in call("job", "show", job_id).stdout


# -- the docs --------------------------------------------------------------------------------------


def shape(shown: str) -> list[str]:
    """Return what stays of a screen whatever its figures, ids, times and accounts are; a bar's line is left out."""
    shown = re.sub(r"\b(?:acme|beta)\b", "NAME", shown)
    shown = re.sub(r"\b[0-9a-f]{8}(?:-[0-9a-f-]{27})?\b", "ID", shown)
    shown = re.sub(r"─+", "─", re.sub(r"\d[\d,.:+-]*", "0", shown))
    return [" ".join(line.split()) for line in shown.splitlines() if "━" not in line]


def assert_is_screen(name: str, shown: str) -> None:
    """Compare what a command has shown with the docs' screen of it."""
    command, _, block = screens.blocks()[name].partition("\n")
    assert command.startswith("$ postbacks ")
    assert shape(shown) == shape(block)


def test_each_screen_of_the_docs_is_one_of_the_scripts():
    taken = screens.blocks()
    assert taken.keys() == {screen.name for screen in screens.SCREENS}
    for screen in screens.SCREENS:
        command = re.sub(r"\\\{\w+\\\}", r"[\\w-]+", re.escape(screen.command))
        assert re.match(rf"\$ {command}\n.", taken[screen.name]), screen.name
