"""Examples of every ``--help``. Lines that are not here are typed as they stand and succeed."""

from __future__ import annotations

import shutil

from block_checks import (
    UP,
    Check,
    elsewhere,
    ends_with_ctrl_c,
    exports_of,
    follows,
    is_up,
    stays,
    types,
)
from command_blocks import Block, Machine

DEMO = "tests/house/test_distribution.py::test_the_demo_runs_whatever_the_environment_says"
HISTORY_RUN = "tests/history/test_history_command.py::test_a_signal_ends_a_recorder_in_order"
VERIFY = "tests/signatures/test_verify.py::test_verify_finds_a_request_ours_in_every_form_that_it_comes_in"
ID = "7c0e1f3a-…"


def on_another_port(machine: Machine, block: Block) -> None:
    """Type a command of the dashboard that stays with another port, and press Ctrl-C when it is there."""
    stayer = machine.start(f"{block.text} --port 8951", exports=exports_of(machine))
    stayer.wait_for("Ctrl-C ends it.")
    assert stayer.stop() == 0
    machine.stayers = {name: one for name, one in machine.stayers.items() if one is not stayer}


_HELP: dict[str, Check] = {
    UP: is_up,
    "postbacks up --port 6380 --data /var/lib/postbacks --workers 2": elsewhere(
        "writes into the system's directories",
        "tests/cli/test_cli_processes.py::test_up_serves_from_an_empty_directory_and_ctrl_c_leaves_no_process_behind",
    ),
    "postbacks demo": elsewhere("tried at length", DEMO),
    "postbacks demo --json": elsewhere("tried at length", DEMO),
    "postbacks receive": stays("Receiving on http://127.0.0.1:8080/ (answers 200)"),
    "postbacks receive --port 9000 --fail-first 2": ends_with_ctrl_c("Receiving on http://127.0.0.1:9000/"),
    "postbacks receive --status 503 --delay 0.5 --json": ends_with_ctrl_c("(answers 503, 0.5 s later)"),
    "postbacks receive --forward-to http://127.0.0.1:3000/postbacks": ends_with_ctrl_c(
        "answers as http://127.0.0.1:3000/postbacks does"
    ),
    "postbacks receive --json | postbacks verify --secret whsec_…": elsewhere("wants a signed POST", VERIFY),
    "postbacks verify --secret whsec_… < request": elsewhere("wants a secret and a signed request", VERIFY),
    "postbacks metrics": ends_with_ctrl_c("Metrics are at http://127.0.0.1:9464/metrics"),
    "postbacks metrics --port 9464 --host 0.0.0.0": ends_with_ctrl_c("http://0.0.0.0:9464/metrics"),
    # On a free port, as the machine's `up` has the one of the page; tests/web/test_start.py has refusals.
    "postbacks web": on_another_port,
    "POSTBACKS_WEB_USERS=users POSTBACKS_WEB_HOSTS=postbacks.example postbacks web --host 0.0.0.0": on_another_port,
    "postbacks web link acme --revoke 1f9a03c2": elsewhere(
        "nobody has such a link",
        "tests/web/test_link_command.py::test_one_or_all_are_withdrawn_and_it_says_how_many",
    ),
    "postbacks web user add ann --role support --file users": types(
        # Nobody is there to be asked: what is no terminal is read.
        before="exec <<<'correct horse battery staple'",
        says="with the role support",
    ),
    "postbacks web user add ann --role admin --file users": types(
        before="exec <<<'correct horse battery staple'", says="with the role admin"
    ),
    "pass postbacks/ann | postbacks web user add ann --role admin": types(
        before="export POSTBACKS_WEB_USERS=users",
        fill={"pass postbacks/ann": "echo 'correct horse battery staple'"},
        says="with the role admin",
    ),
    "postbacks web user add ann --role admin --no-password": types(
        before="export POSTBACKS_WEB_USERS=users", says="with the role admin"
    ),
    f"postbacks show {ID}": types(fill={ID: "order-17"}, says="delivered"),
    f"postbacks show {ID} --json": types(fill={ID: "order-17"}, says='"state": "delivered"'),
    f"postbacks show {ID} --curl --reveal --why 'ticket 4711'": types(
        fill={ID: "order-17"}, says="--data-binary @-"
    ),
    # Of what is delivered neither can be done, and it is said; test_cli_stack.py has those that are dead.
    f"postbacks resend {ID}": types(
        fill={ID: "order-17"}, code=1, says="only a dead or skipped one can be sent again"
    ),
    # A call of another example, which goes to a name that nobody has, may have died by now: it would be asked about.
    "postbacks resend --all-dead --account acme": types(fill={"--account acme": "--account acme --yes"}),
    # Nobody is there to be asked.
    "postbacks resend --account acme --dead --code N202 --why 'their gateway was down'": types(
        fill={"--account acme": "--account acme --yes"}
    ),
    "postbacks cancel --account acme --state parked --why 'they have the list by mail'": types(
        fill={"--account acme": "--account acme --yes"}
    ),
    "postbacks job show 7c0e1f3a": types(code=1, says="There is no job"),
    **{
        line: elsewhere("nobody has such a job", f"tests/cli/test_cli_jobs.py::{test}")
        for line, test in (
            (
                "postbacks job show 7c0e1f3a --json",
                "test_a_job_is_paused_and_stopped_and_says_what_is_left",
            ),
            ("postbacks job pause 7c0e1f3a", "test_a_job_is_paused_and_stopped_and_says_what_is_left"),
            (
                "postbacks job resume 7c0e1f3a",
                "test_a_part_whose_receiver_fails_pauses_and_goes_on_when_it_is_asked",
            ),
            ("postbacks job stop 7c0e1f3a", "test_a_job_is_paused_and_stopped_and_says_what_is_left"),
        )
    },
    "postbacks incident show 17": types(code=1, says="There is no incident 17"),
    **{
        line: elsewhere("nobody has such an incident", f"tests/operate/test_incident_commands.py::{test}")
        for line, test in (
            (
                "postbacks incident show 17 --json",
                "test_incidents_are_listed_and_shown_with_what_to_do_and_what_was_told",
            ),
            (
                "postbacks incident mute 17 --until tomorrow --reason 'they know, ticket 812'",
                "test_a_mute_is_written_with_its_reason_and_its_end_and_taken_back",
            ),
            (
                "postbacks incident unmute 17",
                "test_a_mute_is_written_with_its_reason_and_its_end_and_taken_back",
            ),
        )
    },
    # Nobody has sent such a message; tests/history/test_insight_cli.py has those that are told.
    "postbacks story 4711": types(code=1, says="TRACKINGID or MMSID '4711'"),
    f"postbacks story {ID}": types(fill={ID: "order-18"}, code=1, says="TRACKINGID or MMSID 'order-18'"),
    "postbacks story 4711 --account acme --json": types(code=1, says="no postback of account acme"),
    # In this order: the one reads what the other writes. Nobody is there to be asked.
    "postbacks account export accounts.yaml": types(says="written to accounts.yaml"),
    "postbacks account apply accounts.yaml --why 'ticket 812'": types(
        fill={"accounts.yaml": "accounts.yaml --yes"}
    ),
    "postbacks story 4711 --reveal --why 'ticket 812'": types(code=1, says="TRACKINGID or MMSID '4711'"),
    # Nobody is there to be asked.
    "postbacks account remove acme": types(code=2, says="say --yes"),
    'postbacks forget --number 15552310137 --why "letter of 24 November"': types(code=2, says="say --yes"),
    f"postbacks cancel {ID}": types(fill={ID: "order-17"}, code=1, says="delivered"),
    "postbacks account set acme --url @url.txt --header @headers.txt": types(
        fill={
            "@url.txt": "@<(echo http://127.0.0.1:8080/)",
            "@headers.txt": "@<(echo 'X-Team: messaging')",
        }
    ),
    "postbacks list --account acme --follow": follows,
    # No server has that name, here or anywhere.
    "postbacks ping https://acme.example/postbacks --json": types(code=1, says='"delivered": false'),
    "POSTBACKS_HISTORY_URL=sqlite:///history.db postbacks history run": elsewhere(
        "tried at length", HISTORY_RUN
    ),
    "postbacks history run": elsewhere("tried at length", HISTORY_RUN),
    "postbacks history status": types(says="on, recorder "),
    # The recorder of `up` would turn the feed on again.
    "postbacks history off": types(code=2, says="say --yes"),
    # Only beside a worker that serves its own page, as in docker-compose.yml.
    "postbacks health --worker": types(code=2, says="POSTBACKS_METRICS_PORT"),
    "postbacks render - < event.json | xmllint --format -": types(
        fill={} if shutil.which("xmllint") else {"| xmllint --format -": ""}, says="<POSTBACK>"
    ),
}

CHECKS = {"help": _HELP}
