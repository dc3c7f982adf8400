"""The command line without a broker: its help, its errors, its streams, what it reads and prints."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from events import examples
from helpers import environment
from lxml import etree

from postbacks import errors
from postbacks.catalogue import parse_event, table, xml
from postbacks.cli import main
from postbacks.cli.base import add_row, explained, make_table, print_table, printable
from postbacks.devtools.forwarder import Forwarded
from postbacks.settings import load

pytestmark = pytest.mark.usefixtures("forked")

#: The command as it is installed.
POSTBACKS = str(Path(sys.executable).with_name("postbacks"))
ROW = ("SMS_MO", "N211")


def commands(command=main, words=("postbacks",)):
    """Every command with the words that call it."""
    yield " ".join(words), command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def call(*args, text=None):
    """Call the command in this process."""
    return CliRunner().invoke(main, args, input=text, prog_name="postbacks")


def render(text):
    """Call ``postbacks render -``, which reads events and needs no broker."""
    return call("render", "-", text=text)


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "command"), list(commands()), ids=[words for words, _ in commands()])
def test_the_help_of_every_command_says_what_it_does_and_has_an_example(words, command):
    shown = call(*words.split()[1:], "--help")
    assert shown.exit_code == 0
    assert f"Usage: {words}" in shown.stdout
    assert command.help
    assert command.examples
    assert all(f"\n  {line}\n" in shown.stdout for line in command.examples)


def test_the_commands_stand_in_the_order_of_use():
    assert list(main.commands)[:4] == ["demo", "up", "account", "send"]


def test_version_names_the_program():
    shown = call("--version")
    assert shown.stdout.startswith("postbacks, version ")


def complete(**env):
    """Ask for completion, as a shell's script does."""
    return CliRunner(env=env).invoke(main, prog_name="postbacks")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_gives_a_script(shell):
    shown = complete(_POSTBACKS_COMPLETE=f"{shell}_source")
    assert shown.exit_code == 0
    assert "_POSTBACKS_COMPLETE" in shown.stdout


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("postbacks acc", "account"),
        ("postbacks account s", "set"),
        ("postbacks schema SMS_", "SMS_MO"),
        ("postbacks example SMS_MO N", "N211"),
        ("postbacks send --w", "--wait"),
        ("postbacks list --state p", "parked"),
        ("postbacks list --code N21", "N211"),
    ],
)
def test_shell_completion_completes_commands_options_and_codes(line, wanted):
    shown = complete(
        _POSTBACKS_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1)
    )
    assert f"plain,{wanted}" in shown.stdout.splitlines()


# -- errors and streams ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BrokerUnreachable("x"), 2),
        (errors.BrokerUnfit("x"), 2),
        (errors.BadSetting("x"), 2),
        (errors.UnknownAccount("x"), 2),
        (errors.InvalidEvent([("TO", "x")]), 2),
        (errors.InvalidUrl("x"), 2),
        (errors.InvalidAccount("x"), 2),
        (errors.UnsupportedOption("x"), 2),
        (errors.UnknownPostback("x"), 1),
        (errors.PostbackDead("x"), 1),
        (errors.PostbacksError("x"), 1),
        (TimeoutError("x"), 1),
        (PermissionError(13, "Permission denied", "data"), 1),
        (ZeroDivisionError("x"), 1),
    ],
    ids=repr,
)
def test_an_error_is_a_sentence_and_an_exit_code(error, code):
    shown = explained(error)
    assert shown.exit_code == code
    assert "\n" not in shown.message
    assert shown.message


@pytest.fixture
def broken(monkeypatch):
    """Give ``postbacks codes`` something to raise."""

    def raising(error):
        def table():
            raise error

        monkeypatch.setattr("postbacks.catalogue.table", table)

    return raising


def test_what_nobody_expected_is_a_sentence_that_says_how_to_see_more(broken):
    broken(ZeroDivisionError("division by zero"))
    shown = call("codes")
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert "ZeroDivisionError: division by zero" in shown.stderr
    assert "POSTBACKS_DEBUG=1" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_postbacks_debug_shows_the_traceback(broken, monkeypatch):
    monkeypatch.setenv("POSTBACKS_DEBUG", "1")
    error = ZeroDivisionError("division by zero")
    broken(error)
    assert call("codes").exception is error


def test_ctrl_c_is_quiet_and_130(broken):
    broken(KeyboardInterrupt())
    shown = call("codes")
    assert shown.exit_code == 128 + signal.SIGINT
    assert shown.output == ""


def test_a_reader_that_leaves_is_no_reason_for_a_traceback():
    done = subprocess.run(
        ["bash", "-c", f"{shlex.quote(POSTBACKS)} schema | head -c 1"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout == "<"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["send"],
        ["send", "acme", "no-such-file.json"],
        ["account", "set", "acme"],
        ["account", "set", "acme", "--url", "ftp://x.example/"],
        ["account", "set", "acme", "--url", "/relative"],
        ["account", "set", "acme", "--url", "https://x.example/" + "a" * 2048],
        ["account", "set", "no name", "--url", "https://x.example/"],
        ["account", "set", "acme", "--url", "https://x.example/", "--off", "SMS"],
        ["schema", "SMS_MO"],
        ["schema", "SMS_MO", "N999"],
        ["example", "SMS", "N211"],
        ["receive", "--port", "70000"],
        ["receive", "--status", "199"],
        ["receive", "--delay", "nan"],
        ["receive", "--delay", "-1"],
        ["receive", "--fail-first", "-1"],
        ["receive", "--forward-to", "127.0.0.1:3000"],
        ["receive", "--forward-to", "http://u:p@127.0.0.1:3000/"],
        ["receive", "--forward-to", "http://127.0.0.1:3000/?a=1"],
        ["receive", "--forward-to", "http://localhost:8080/"],
        ["receive", "--forward-to", "http://127.0.0.1:3000/", "--status", "200"],
        ["receive", "--forward-to", "http://127.0.0.1:3000/", "--fail-first", "1"],
        ["receive", "--forward-to", "http://127.0.0.1:3000/", "--delay", "1"],
        ["up", "--workers", "0"],
        ["list", "--limit", "0"],
        ["cancel", "no id"],
        ["cancel"],
        ["cancel", "--account", "acme"],
        ["cancel", "one", "--account", "acme"],
        ["resend"],
        ["resend", "--account", "acme"],
        ["resend", "one", "--account", "acme"],
        ["resend", "one", "--all-dead"],
        ["resend", "-", "one"],
        ["resend", "--all-dead", "--code", "N202"],
        ["resend", "--dead", "--rate", "0"],
        ["resend", "--dead", "--since", "soon"],
        ["job", "show"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_2_with_a_sentence_on_stderr(args):
    shown = call(*args)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert "Error: " in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("forwarded", "words"),
    [
        (
            Forwarded(200, 12.5, is_servers=True, body=b"OK"),
            "answered 200 in 12500 ms, later than the 10 s that a worker waits: OK",
        ),
        (
            Forwarded(200, 0.0012, is_servers=True, problem="the connection was closed inside its answer"),
            "answered 200 in 1 ms, the connection was closed inside its answer",
        ),
        (Forwarded(None, 0.01, is_servers=True, body=b"\n"), "answered no HTTP in 10 ms"),
        (
            Forwarded(504, 60, problem="no end of its answer within 60 s"),
            "no end of its answer within 60 s, so the answer is 504",
        ),
    ],
    ids=["late", "half", "no HTTP", "none"],
)
def test_receive_says_in_words_what_came_of_a_forwarded_request(forwarded, words):
    receive = importlib.import_module("postbacks.cli.receive")
    answered = receive._Answered(None, forwarded.status, "http://127.0.0.1:3000/", forwarded)
    assert receive._forwarded_words(answered, forwarded) == f"http://127.0.0.1:3000/: {words}"


@pytest.mark.parametrize(
    ("variables", "countdown"), [({}, "5"), ({"POSTBACKS_RETRY_COUNTDOWN_S": "60"}, "60")]
)
def test_up_dev_resends_after_5_s_unless_the_environment_says_when(variables, countdown):
    dev_environment = importlib.import_module("postbacks.cli.up")._dev_environment
    with environment(**variables):
        changed = dev_environment(load())
    assert changed["POSTBACKS_RETRY_COUNTDOWN_S"] == countdown
    assert changed["POSTBACKS_ALLOWED_NETWORKS"].startswith(
        "127.0.0.0/8,::1/128,127.0.0.0/8,"
    )  # the suite's and ours


def test_up_without_sqlalchemy_has_no_history_and_says_how_to_get_one(monkeypatch, tmp_path):
    """The command goes on all the same."""
    up = importlib.import_module("postbacks.cli.up")
    assert up._history(load(), tmp_path)[0] == f"sqlite:///{tmp_path}/history.db"
    with environment(POSTBACKS_HISTORY_URL="postgresql://user:secret@db/postbacks"):
        assert up._history(load(), tmp_path) == (
            "postgresql://user:secret@db/postbacks",
            "postgresql://user@db/postbacks",
        )
    assert up._history(load(), tmp_path / "what?")[0] == ""
    monkeypatch.setattr(up, "find_spec", lambda _: None)
    assert up._history(load(), tmp_path) == (
        "",
        "none: pip install 'postbacks[history]' brings what it needs",
    )


def test_a_bad_setting_names_the_variable():
    done = _run("list", env={"POSTBACKS_MAX_RESENDS": "five"})
    assert done.returncode == 2
    assert "POSTBACKS_MAX_RESENDS='five'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_strangers_text_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\r\nc\x9b") == "a\\x1b[2Jb\\r\\nc\\x9b"
    assert printable("Müller ✋") == "Müller ✋"


# -- the catalogue ---------------------------------------------------------------------------------


def test_codes_lists_every_row_on_a_line_of_its_own():
    lines = call("codes").stdout.splitlines()
    assert len(lines) == len(table()) + 2
    assert next(line for line in lines if line.startswith("SMS_MO ")).endswith("TRANSACTIONID?")


def test_codes_json_is_one_object_a_line():
    rows = [json.loads(line) for line in call("codes", "--json").stdout.splitlines()]
    assert [(row["origin"], row["code"]) for row in rows] == [(row.origin, row.code) for row in table()]
    assert rows[0].keys() == {"origin", "code", "group", "name", "meaning", "tags"}


@pytest.mark.parametrize("row", list(examples()), ids=" ".join)
def test_the_example_of_every_row_renders_to_the_bytes_that_are_posted(row):
    given = call("example", *row).stdout
    shown = render(given)
    assert shown.exit_code == 0
    assert shown.stdout_bytes == xml.render(parse_event(examples()[row]))


def test_schema_prints_relax_ng_for_all_and_an_xsd_for_a_row():
    document = etree.fromstring(xml.render(parse_event(examples()[ROW])))
    relax_ng = etree.RelaxNG(etree.fromstring(call("schema").stdout_bytes))
    xsd = etree.XMLSchema(etree.fromstring(call("schema", *ROW).stdout_bytes))
    assert relax_ng.validate(document)
    assert xsd.validate(document)


# -- events from a file ----------------------------------------------------------------------------

_EVENT = examples()[ROW]
_LINE = json.dumps(_EVENT)


@pytest.mark.parametrize(
    "text",
    [_LINE, json.dumps(_EVENT, indent=4), f"[{_LINE}]", f"\ufeff{_LINE}\n", f"\n\n {_LINE}\n\n"],
    ids=["object", "indented", "array", "byte order mark", "blank lines"],
)
def test_one_event_may_be_written_in_many_ways(text):
    assert render(text).stdout_bytes == xml.render(parse_event(_EVENT))


def changed(**tags):
    """The example with other tags; None leaves one out."""
    return json.dumps({tag: value for tag, value in {**_EVENT, **tags}.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "standard input holds no event"),
        ("[]", "standard input holds no event"),
        ('{\n  "ORIGIN": "SMS_MO",\n  oops}', "is no JSON: line 3, column 3: Expecting property name"),
        (f"{_LINE}\n{_LINE[:-1]}", f"is no JSON: line 2, column {len(_LINE)}: Expecting ',' delimiter"),
        (f"{_LINE},\n{_LINE}", f"is no JSON: line 1, column {len(_LINE) + 1}: "),
        ('{"TO": "1", "TO": "2"}', "line 1, column 1: 'TO' stands twice"),
        ('{"TO": NaN}', "line 1, column 1: NaN is no JSON value"),
        ("[" * 100_000, "is nested too deep"),
        (f'{{"TO": {"1" * 5000}}}', "line 1, column 1: a number in what begins here has 5,000 digits"),
        ('{"TEXT":\n"' + "\udcff" + '"}', "line 2, column 2: byte 0xff is no UTF-8"),
        ("42", "an event is an Event or a mapping of tags, not 42"),
        (changed(CODE="N999"), "CODE: unknown: 'N999'; known: N211"),
        (changed(COLOUR="red"), "COLOUR: unknown tag"),
        (changed(TO=None), "TO: required, but has no value"),
        (changed(TO="+49171", FROM="x"), "TO: must be "),
        (changed(RECEIVED="2013-11-05T05:41:08"), "RECEIVED: must be "),
        (changed(TEXT="x" * 262_144), "at most 256 KiB are allowed"),
        (f"{changed(TO='x')}\n{_LINE}\n{changed(FROM='y')}", "line 1: event SMS_MO N211"),
        (f"{changed(TO='x')}\n{_LINE}\n{changed(FROM='y')}", "; line 3: event SMS_MO N211"),
        (f"[{_LINE}, {changed(TO='x')}]", "event 2: event SMS_MO N211"),
        ("\n".join([changed(TO="x")] * 9), "and 4 more of its 9 events"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_one_sentence_that_says_where(text, words):
    shown = render(text.encode("utf-8", "surrogateescape"))
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert words in shown.stderr
    assert shown.stderr.startswith("Error: standard input")
    assert shown.stderr.count("\n") == 1
    assert len(shown.stderr) < 2000


def test_a_fault_names_the_file(tmp_path):
    path = tmp_path / "event.json"
    path.write_text("{")
    assert f"Error: {path} is no JSON: line 1, column 2" in call("render", str(path)).stderr


def test_render_takes_one_event():
    shown = render(f"{_LINE}\n{_LINE}")
    assert shown.exit_code == 2
    assert "this file holds 2 events" in shown.stderr


@pytest.mark.parametrize("columns", ["100", "60", "4"])
def test_one_long_cell_of_a_table_pads_no_row_but_its_own(monkeypatch, capsys, columns):
    """A row is one line where there is no terminal; the width is COLUMNS', or 80."""
    monkeypatch.setenv("COLUMNS", columns)
    shown = make_table("account", "Postback URL", "age", right=("age",))
    add_row(shown, "acme", "https://acme.example/", "7")
    add_row(shown, "long", "https://long.example/" + "x" * 2000, "12")
    print_table(shown)
    header, _, short, long = capsys.readouterr().out.splitlines()
    assert long.split() == ["long", "https://long.example/" + "x" * 2000, "12"]
    assert short.split() == ["acme", "https://acme.example/", "7"]
    assert len(short) <= 60
    if columns != "4":
        assert header.index("age") + 2 == short.index("7")


def _run(*args, env=None):
    return subprocess.run(
        [POSTBACKS, *args],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("command", ["show", "resend", "cancel"])
@pytest.mark.parametrize("text", ["a b", "\udcff", "ü", "", "x" * 256])
def test_what_cannot_be_an_id_is_2(command, text):
    done = CliRunner().invoke(main, [command, text])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "cannot be a postback's id: 1 to 255 printable ASCII characters, no spaces." in done.stderr
