"""``postbacks web link``: it makes a link and shows it once, lists the open ones, and withdraws them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from helpers import environment, set_account

from postbacks.cli import main, web_links
from postbacks.operate import links, open_links


def run(*args: str, **variables: str):
    """Run the command in this process."""
    with environment(POSTBACKS_USER="ann", **variables):
        return CliRunner().invoke(main, ["web", "link", *args])


@pytest.fixture(autouse=True)
def _acme(rig):
    set_account("acme", url="https://acme.example/")


def test_its_days_are_those_of_the_room_below():
    (days,) = (option for option in web_links.link.params if option.name == "days")
    assert (days.default, days.type.min, days.type.max) == (links.DAYS, 1, links.DAYS_MAX)


def test_it_prints_one_address_that_opens_the_account(browse):
    done = run("acme", "--days", "3")
    assert done.exit_code == 0, done.stderr
    (address,) = done.stdout.splitlines()
    assert address.startswith("http://127.0.0.1:8910/c/")
    (link,) = open_links()
    assert (link.account, link.by, link.may_resend) == ("acme", "ann", False)
    assert link.ends_ms - link.made_ms == 3 * 86_400_000
    assert "masked" in done.stderr
    assert "nothing can be sent again with it" in done.stderr
    assert f"--revoke {link.id}" in done.stderr
    assert browse().get(address.removeprefix("http://127.0.0.1:8910")).status_code == 303


@pytest.mark.parametrize(
    ("args", "variables", "base"),
    [
        ((), {"POSTBACKS_WEB_URL": "https://postbacks.example/"}, "https://postbacks.example/c/"),
        (("--url", "http://[::1]:99/"), {"POSTBACKS_WEB_URL": "https://x.example"}, "http://[::1]:99/c/"),
    ],
)
def test_its_base_is_what_is_set(args, variables, base):
    done = run("acme", "--json", "--resend", *args, **variables)
    told = json.loads(done.stdout)
    assert told["url"].startswith(base)
    assert told["resend"] is True
    assert {"id", "account", "by", "made", "ends", "used"} < set(told)


def test_open_ones_are_listed_by_their_ids_and_never_again_by_their_address():
    addresses = [run(name).stdout.strip() for name in ("acme", "acme")]
    set_account("beta", url="https://beta.example/")
    run("beta", "--resend")
    shown = run("--list")
    assert shown.exit_code == 0
    for link in open_links():
        assert link.id in shown.stdout
    assert "look, resend" in shown.stdout
    assert "never" in shown.stdout
    assert not [address for address in addresses if address.rpartition("/")[2] in shown.stdout]
    listed = [json.loads(line) for line in run("--list", "acme", "--json").stdout.splitlines()]
    assert {each["account"] for each in listed} == {"acme"}
    assert len(listed) == 2
    assert "url" not in listed[0]
    assert "Account nobody has no open link." in run("--list", "nobody").stderr


def test_one_or_all_are_withdrawn_and_it_says_how_many():
    for _ in range(3):
        run("acme")
    first = open_links("acme")[0]
    assert "1 link of acme is withdrawn." in run("acme", "--revoke", first.id).stderr
    again = run("acme", "--revoke", first.id)
    assert (again.exit_code, f"has no open link '{first.id}'" in again.stderr) == (1, True)
    assert "2 links of acme are withdrawn." in run("acme", "--revoke").stderr
    assert run("acme", "--revoke").exit_code == 0
    assert open_links("acme") == []


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "Which account?"),
        (("--revoke",), 2, "Which account?"),
        (("acme", "--list", "--revoke"), 2, "Either --list or --revoke"),
        (("acme", "--days", "91"), 2, "91"),
        (("acme", "--days", "0"), 2, "0"),
        (("acme", "--url", "postbacks.example/path"), 2, "give a scheme, a host"),
        (("nobody",), 2, "There is no account 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(args, code, words):
    done = run(*args)
    assert (done.exit_code, words in done.stderr) == (code, True), done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert open_links() == []
