"""Every page of the dashboard with something on it: how each is opened, and the facts that it has to show."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from events import MO
from helpers import eventually
from playwright.sync_api import Page, expect
from stage import Stage

from postbacks import keys, send_postback
from postbacks.broker.client import client
from postbacks.devtools.receiver import Answer
from postbacks.history import Query
from postbacks.operate import Incident, all_incidents, make_link, pause_account, read_job, start_resend
from postbacks.settings import load
from postbacks.web.security.key import Signers
from postbacks.web.security.links import Links


@dataclass(frozen=True)
class Facts:
    """Numbers and ids of what is staged.

    Attributes:
        incident: number of the open incident.
        job: id of the job that has ended.
        dead: id of a postback that is dead.
        waiting: id of one that waits.
        delivered: id of one that is delivered.
        link: path of a link for the customer whose postbacks are dead.
    """

    incident: int
    job: str
    dead: str
    waiting: str
    delivered: str
    link: str


def put_on_stage(stage: Stage) -> Facts:
    """Let something happen that each page shows: well, failing and paused accounts, a job, opt-outs, an incident."""
    stage.account("acme")
    locked = Answer(503, b'{"error": "database is locked"}')
    stage.account("corner-shop", locked, url=stage.failing.url("/corner-shop"))
    stage.account("delta", Answer(500))
    stage.account("eagle")
    pause_account("eagle", reason="their maintenance", by="ann-operator")
    delivered = stage.send("acme", 12)
    dead = stage.send("corner-shop", 3)
    stage.send("delta", 2)
    waiting = stage.send("eagle", 2)
    send_postback.delay("eagle", MO)
    stage.recorded(5, state="dead")
    stage.recorded(12, account="acme", state="delivered")
    stage.answers["/delta"] = Answer()
    job = start_resend(Query(account="delta", state="dead"), why="ticket 812", by="ann-operator")
    eventually(lambda: read_job(job.id).state == "ended", 60, "the end of the job")

    def open_incidents() -> list[Incident]:
        return [
            incident
            for incident in all_incidents()
            if incident.is_open and incident.figures.get("dead") and incident.accounts == ("corner-shop",)
        ]

    (incident,) = eventually(open_incidents, 60, "an incident")
    stage.recorded(3, account="eagle", state="waiting")
    link = Links(load(), Signers(load())).address(make_link("corner-shop", may_resend=True), "")
    return Facts(incident.id, job.id, dead[0], waiting[0], delivered[0], link)


def _by_address(address: str) -> Callable[[Page, Facts], None]:
    def open_it(page: Page, facts: Facts) -> None:
        page.goto(address.format(facts=facts))

    return open_it


def _selection(page: Page, facts: Facts) -> None:
    page.goto("/postbacks?q=account%3Acorner-shop")
    page.get_by_role("checkbox", name=f"Select {facts.dead}").check()
    page.get_by_role("button", name="Send again…").click()
    expect(page.get_by_role("main")).to_contain_text("1 postback will be sent again")


def _ping(page: Page, facts: Facts) -> None:
    page.goto("/accounts/corner-shop")
    page.get_by_role("button", name="Ping").click()
    expect(page.get_by_role("main")).to_contain_text("Not delivered")


def _curl(page: Page, facts: Facts) -> None:
    page.goto(f"/postbacks/{facts.dead}")
    page.get_by_label("Why it is to be revealed").fill("for their developer")
    page.get_by_role("button", name="Show as curl").click()
    expect(page.get_by_role("main")).to_contain_text("--data-binary")


def _by_link(address: str) -> Callable[[Page, Facts], None]:
    def open_it(page: Page, facts: Facts) -> None:
        page.goto(facts.link)
        page.goto(address.format(facts=facts))

    return open_it


def _customers_resend(page: Page, facts: Facts) -> None:
    _by_link("/customer/postbacks?q=state%3Adead")(page, facts)
    page.get_by_role("checkbox", name=f"Select {facts.dead}").check()
    page.get_by_role("button", name="Send again…").click()
    expect(page.get_by_role("main")).to_contain_text("1 postback will be sent again")


def _customers_ping(page: Page, facts: Facts) -> None:
    client().delete(keys.WEB_PINGED + "corner-shop")  # a page is opened more than once in ten seconds
    _by_link("/customer/")(page, facts)
    page.get_by_role("button", name="Test your receiver").click()
    expect(page.get_by_role("main")).to_contain_text("Not delivered")


#: Page -> how it is opened.
EVERY_PAGE: dict[str, Callable[[Page, Facts], None]] = {
    "now": _by_address("/"),
    "incidents": _by_address("/incidents"),
    "incident": _by_address("/incidents/{facts.incident}"),
    "postbacks": _by_address("/postbacks"),
    "postbacks-found": _by_address("/postbacks?q=account%3Acorner-shop+state%3Adead+since%3A2h"),
    "postbacks-none": _by_address("/postbacks?q=account%3Anobody"),
    "postbacks-mistake": _by_address("/postbacks?q=4711%204712"),
    "postback-dead": _by_address("/postbacks/{facts.dead}"),
    "postback-waiting": _by_address("/postbacks/{facts.waiting}"),
    "postback-delivered": _by_address("/postbacks/{facts.delivered}"),
    "curl": _curl,
    "selection": _selection,
    "story-none": _by_address("/story"),
    "story": _by_address("/story/{facts.dead}"),
    "accounts": _by_address("/accounts"),
    "account": _by_address("/accounts/corner-shop"),
    "account-paused": _by_address("/accounts/eagle"),
    "account-new": _by_address("/new-account"),
    "account-change": _by_address("/accounts/corner-shop/change"),
    "account-secrets": _by_address("/accounts/corner-shop/secrets"),
    "forget": _by_address("/forget"),
    "ping": _ping,
    "jobs": _by_address("/jobs"),
    "job": _by_address("/jobs/{facts.job}"),
    "opt-outs": _by_address("/opt-outs"),
    "journal": _by_address("/journal"),
    "system": _by_address("/system"),
    "zone": _by_address("/zone"),
    "missing": _by_address("/no-such-page"),
}
#: Pages for whom nobody has logged in.
STRANGERS = {
    "login": _by_address("/login"),
    "customer": _by_link("/customer/"),
    "customer-postbacks": _by_link("/customer/postbacks?q=state%3Adead+since%3A2h"),
    "customer-postback": _by_link("/customer/postbacks/{facts.dead}"),
    "customer-ping": _customers_ping,
    "customer-resend": _customers_resend,
    "customer-urls": _by_link("/customer/urls"),
    "customer-without-link": _by_address("/customer/"),
}


def facts_of(page: Page) -> str:
    """Return the text of a page as it is shown, ages left out."""
    text = page.get_by_role("main").inner_text()
    text = re.sub(r"just now|in a moment|(in )?[\d.,]+ (ms|s|min|h|d)( \d+ (min|h))?( ago)?", "AGE", text)
    return re.sub(r"\s+", " ", text)
