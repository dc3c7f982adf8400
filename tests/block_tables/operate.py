"""Pages of whoever operates: docs/dashboard.md, doctor.md, history.md, monitoring.md, operate.md, privacy.md, settings.md, upgrading.md."""

from __future__ import annotations

import json
import re

import deploy_checks
from block_checks import Check, elsewhere, ends_with_ctrl_c, exports_of, types
from command_blocks import ROOT, Block, Machine, blocks_of

from block_tables.help import ID
from postbacks.accounts import secrets
from postbacks.settings import Settings

RIGHTS = "tests/broker/test_broker_rights.py::test_everything_runs_with_the_rights_of_the_page_and_asks_for_no_more"
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
JOBS = "tests/operate/test_jobs.py::"


def is_broker_url(machine: Machine, block: Block) -> None:
    """Read each URL as a process does where it starts, which wants its certificates to be there."""
    del machine
    for line in block.text.splitlines():
        url = re.sub("(?<=ssl_ca_certs=)[^&]+", str(ROOT / "LICENSE"), line)
        assert Settings(broker_url=url.removeprefix("POSTBACKS_BROKER_URL=")).broker_url


def is_health(machine: Machine, block: Block) -> None:
    """Type its two commands: the sentence begins as the page's does, and the object has the page's keys."""
    commands, (sentence, document) = block.text.splitlines()[::2], block.text.splitlines()[1::2]
    well, object_ = (machine.type(command.removeprefix("$ ")).stdout for command in commands)
    assert well.partition(",")[0].split(" finished")[0] == sentence.partition(",")[0].split(" finished")[0]
    assert json.loads(object_).keys() == json.loads(document).keys()


def is_account_file(machine: Machine, block: Block) -> None:
    """Show what the file would change, where the account has the header that it keeps."""
    (machine.folder / "page.yaml").write_text(block.text)
    (machine.folder / "keys").mkdir()
    (machine.folder / "keys" / "acme.txt").write_text("a key")
    done = machine.type(
        f"export ACME_MO_URL=http://127.0.0.1:8080/mo ACME_SECRET={secrets.new_secret()}\n"
        "postbacks account set acme --header 'Authorization: Basic YTpi'\n"
        "postbacks account apply page.yaml --dry-run\n"
        "postbacks account set acme --header 'Authorization:'\n"
    )
    assert done.returncode == 0, done.stderr
    assert "X-Api-Key" in done.stdout + done.stderr


def is_dashboard(machine: Machine, block: Block) -> None:
    """Type it without pip and on a free port, as the machine's ``up`` has the page's; whoever opens it has all rights."""
    install, web = block.text.splitlines()
    assert install == "pip install 'postbacks[web]'"  # tests/house/test_installing.py: what the extra brings
    stayer = machine.start(f"{web} --port 8950", exports=exports_of(machine))
    stayer.wait_for("all rights")
    page = machine.type("curl -s http://127.0.0.1:8950/").stdout
    assert "all rights" in page
    assert stayer.stop() == 0
    machine.stayers.pop("postbacks web")


def is_dashboard_of_users(machine: Machine, block: Block) -> None:
    """Make the user and serve others than this machine: the page's name is let in up to the login, a foreign one is not."""
    lines = block.text.replace("/etc/postbacks/users", "users").splitlines()
    done = machine.type(f"echo 'correct horse battery staple' | {lines[0]}")
    assert "ann is added to users, with the role admin." in done.stdout + done.stderr
    typed = "\n".join([*lines[1:-1], f"{lines[-1]} --port 8950"])
    stayer = machine.start(typed, exports=exports_of(machine))
    stayer.wait_for("Ctrl-C ends it.")
    status = "curl -s -o /dev/null -w '%{http_code} ' http://127.0.0.1:8950/login -H"
    names = ("postbacks.example", "evil.example")
    assert machine.type("\n".join(f"{status} 'Host: {name}'" for name in names)).stdout == "200 421 "
    assert stayer.stop() == 0
    machine.stayers = {name: one for name, one in machine.stayers.items() if one is not stayer}


def are_links(machine: Machine, block: Block) -> None:
    """Type all but the last line, then that with the id of a link that they have made."""
    *lines, last = block.text.splitlines()
    done = machine.type("\n".join(lines))
    assert done.returncode == 0, done.stderr
    listed = machine.type("postbacks web link --list --json").stdout.splitlines()
    (link_id, *_) = (json.loads(line)["id"] for line in listed)
    withdrawn = machine.type(last.replace("1f9a03c2", link_id))
    assert withdrawn.returncode == 0, withdrawn.stderr
    assert len(machine.type("postbacks web link --list --json").stdout.splitlines()) == len(listed) - 1


CHECKS: dict[str, dict[str, Check]] = {
    "docs/dashboard.md": {
        "pip install 'postbacks[web]'": is_dashboard,
        "postbacks web user add ann --role admin --file /etc/postbacks/users": is_dashboard_of_users,
        "postbacks web link acme --days 7": are_links,
        "mkdir web && sudo chown 10001 web": deploy_checks.makes_a_user,
        "services:": deploy_checks.is_override,
    },
    "docs/doctor.md": {"postbacks doctor": types()},
    "docs/history.md": {
        "pip install 'postbacks[history]'": elsewhere(
            "pip asks its index",
            "tests/history/test_history_command.py::test_a_signal_ends_a_recorder_in_order",
        ),
        "postbacks history status": elsewhere(
            "it would turn the machine's history off",
            "tests/history/test_history_command.py::test_off_says_what_it_does_asks_and_ends_the_feed",
        ),
        "postbacks list --number '+1 555 231 0137' --since 2d": types(),
        "postbacks story 4711": elsewhere(
            "nobody has sent such a message",
            "tests/history/test_insight_cli.py::test_the_commands_of_the_page_answer",
        ),
        "postbacks stats": types(),
        "CREATE ROLE postbacks_reader LOGIN PASSWORD 'another password';": elsewhere(
            "wants PostgreSQL",
            "tests/history/test_schema_page.py::test_the_pages_reader_may_read_everything_and_write_nothing",
        ),
        **{
            line: elsewhere(
                "wants a history of that day",
                "tests/history/test_schema_page.py::test_each_example_of_the_page_finds_what_it_says",
            )
            for line in (
                "SELECT account, reason, count(*) AS dead",
                "SELECT account, count(*) AS postbacks,",
                "SELECT host, count(*) AS answers, round(avg(elapsed_ms)) AS mean_ms, max(elapsed_ms) AS longest_ms",
                "SELECT counts.hour * 3600 AS unix_time, origin, codes.code, sum(postbacks) AS postbacks",
                "SELECT p.id, a.number, o.name AS outcome, a.status, a.detail, a.excerpt",
            )
        },
    },
    "docs/monitoring.md": {
        "postbacks metrics --port 9464 --host 0.0.0.0": ends_with_ctrl_c("http://0.0.0.0:9464/metrics"),
        "histogram_quantile(0.99, sum by (le, group) (rate(postbacks_first_post_seconds_bucket[5m])))": elsewhere(
            "wants Prometheus",
            "tests/monitor/test_snapshot.py::test_each_query_of_the_dashboard_and_of_the_alerts_finds_series",
        ),
        "$ postbacks health": is_health,
        "time for i in 1 2 3 4 5 6 7 8 9 10; do postbacks health; done": types(),
        "pip install 'postbacks[flower]'": elsewhere(
            "pip asks its index; the README's runs Flower",
            "tests/house/test_installing.py::test_flower_is_the_command_of_its_own_extra",
        ),
    },
    "docs/operate.md": {
        f"postbacks resend {ID}": types(fill={ID: "order-16"}),
        f"postbacks cancel {ID}": elsewhere(
            "nobody has such a postback",
            JOBS + "test_a_cancel_takes_what_waits_and_is_parked_and_has_the_open_one_not_sent_again",
        ),
        "postbacks incident mute 2 --until tomorrow --reason 'they know, ticket 812'": elsewhere(
            "nobody has such an incident",
            "tests/operate/test_incident_commands.py::test_a_mute_is_written_with_its_reason_and_its_end_and_taken_back",
        ),
        "import time": elsewhere(
            "nobody has such an incident",
            "tests/operate/test_incident_commands.py::test_python_has_the_same",
        ),
        "postbacks journal": types(),
        "postbacks account export accounts.yaml": types(
            # Nobody is there to be asked.
            fill={"accounts.yaml --why": "accounts.yaml --yes --why"},
        ),
        "accounts:": is_account_file,
        "postbacks list --opt-outs --undelivered": types(),
    },
    "docs/privacy.md": {
        "postbacks show ID --reveal --why 'ticket 4711'": types(
            fill={"show ID": "show order-17", "postbacks story TRACKINGID": "true"},
        ),
    },
    "docs/settings.md": {
        "redis://USER:PASSWORD@host:6379/0": is_broker_url,
        "POSTBACKS_BROKER_URL=rediss://:PASSWORD@redis.example:6379/0?ssl_ca_certs=/etc/redis/ca.crt": is_broker_url,
        'openssl req -x509 -new -key ca.key -subj "/CN=our authority" -days 3650 -out ca.crt \\': types(
            before="openssl genpkey -algorithm ed25519 -out ca.key\n"
            "openssl req -new -newkey ed25519 -nodes -keyout redis.key -subj /CN=redis.example -out redis.csr"
        ),
        "POSTBACKS_BROKER_URL=sentinel://:PASSWORD@host1:26379,host2:26379,host3:26379/NAME?db=0&sentinel_password=OTHER": is_broker_url,
        **{
            block.first_line: elsewhere("redis-cli is not here", RIGHTS)
            for block in blocks_of("docs/settings.md", SETTINGS)
            if block.text.startswith("ACL SETUSER ")
        },
    },
    "docs/upgrading.md": {
        "redis-cli del postbacks:task-events:meter postbacks:task-events:levels": elsewhere(
            "redis-cli is not here"
        ),
    },
}
