"""Every page in the browser: by keyboard alone, without JavaScript, on a phone, dark and light."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from every_page import EVERY_PAGE, STRANGERS, Facts, facts_of, put_on_stage
from helpers import eventually
from playwright.sync_api import Page, Route
from watch import TOO_WIDE

pytestmark = pytest.mark.browser
#: Address of axe-core's file, set by `make web-test`, which fetches it.
AXE = os.environ.get("BROWSER_AXE", "")
NAMES = [*EVERY_PAGE, *STRANGERS]
#: Pages that answer a form: to load them again would send it again.
FORMS = {"selection", "ping", "curl", "customer-ping", "customer-resend"}
#: What a finger or a pointer hits; links in sentences are as high as their line.
CONTROLS = "button, input:not([type=hidden]), select, summary, textarea, nav a, .chips a, .button"
TOO_SMALL = f"""() => [...document.querySelectorAll('{CONTROLS}')]
  .filter((element) => element.checkVisibility())
  .map((element) => [element.outerHTML.slice(0, 80), element.getBoundingClientRect()])
  .filter(([_, box]) => box.width < 24 || box.height < 24)
  .map(([html, box]) => `${{html}} ${{box.width}} x ${{box.height}}`)"""
#: What Tab stops at, in the order of the document.
STOPS = """() => {
  const wanted = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]';
  window.stops = [...document.querySelectorAll(wanted)].filter((element) =>
    element.tabIndex >= 0 && !element.disabled && element.checkVisibility({visibilityProperty: true}));
  return window.stops.length;
}"""
#: Number of the stop that has the focus, -1 for none, and whether that can be seen.
STOP = """() => {
  const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
  const isSeen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 &&
    box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return [window.stops.indexOf(element), isSeen, element.outerHTML.slice(0, 120)];
}"""


@pytest.fixture(scope="module")
def facts(stage) -> Facts:
    return put_on_stage(stage)


def open_page(desk, facts: Facts, name: str, *, is_live: bool = True, **options) -> Page:
    """Open a page by its name, as an admin, to whom it shows the most."""
    page = desk.page("" if name in STRANGERS else "admin", **options)
    if not is_live:
        page.route("**/*", _leave_as_it_is)
    (EVERY_PAGE | STRANGERS)[name](page, facts)
    page.wait_for_load_state()  # a page that answers a form has its words before its style sheet
    return page


def _leave_as_it_is(route: Route) -> None:
    if "hx-request" in route.request.headers:
        route.fulfill(status=304)
    else:
        route.continue_()


@pytest.mark.parametrize("name", NAMES)
def test_every_page_is_walked_through_by_tab_and_its_focus_is_seen(desk, facts, name):
    # A live part that is read again has other elements; that the focus stays then is another test's matter.
    page = open_page(desk, facts, name, is_live=False)
    page.evaluate("document.activeElement.blur()")
    count = page.evaluate(STOPS)
    walk, unseen = [], []
    for _ in range(count + 20):  # the browser itself stops at what can be scrolled
        page.keyboard.press("Tab")
        place, is_seen, html = page.evaluate(STOP)
        if place >= 0:
            if place in walk:
                break
            walk.append(place)
            if not is_seen:
                unseen.append(html)
    assert unseen == []
    assert sorted(walk) == list(range(count))
    start = walk.index(0)
    assert walk[start:] + walk[:start] == list(range(count)), "the order is the document's"
    page.evaluate("scrollTo(0, 0); window.stops[0].focus()")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main", "the first stop leads to the content"


@pytest.mark.parametrize("name", [*NAMES])
def test_every_page_says_the_same_without_javascript(desk, facts, name):
    with_script = open_page(desk, facts, name)
    without = open_page(desk, facts, name, java_script_enabled=False)

    def look() -> bool:
        if facts_of(with_script) == facts_of(without):
            return True
        if name not in FORMS:  # something was recorded between the two
            with_script.reload()
            without.reload()
        return False

    eventually(look, 60, f"the same text of {name}")
    assert len(facts_of(without)) > 20


@pytest.mark.parametrize("name", NAMES)
def test_every_page_fits_a_phone(desk, facts, name):
    page = open_page(desk, facts, name, viewport={"width": 360, "height": 740}, has_touch=True)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(TOO_SMALL) == []


@pytest.mark.skipif(not AXE, reason="axe-core is fetched by make web-test")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious(desk, facts, name, scheme, record_figures):
    found: Counter[str] = Counter()
    serious: list[str] = []
    page = open_page(desk, facts, name, color_scheme=scheme)
    for summary in page.locator("summary").all():
        summary.click()
    page.evaluate(Path(AXE).read_text())
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 740})
        result = page.evaluate("axe.run({rules: {'target-size': {enabled: true}}})")
        assert {"color-contrast", "target-size", "html-has-lang"} <= {rule["id"] for rule in result["passes"]}
        for violation in result["violations"]:
            nodes = violation["nodes"]
            found[violation["impact"]] += len(nodes)
            if violation["impact"] in {"serious", "critical"}:
                serious += [f"{width} px: {node['html'][:200]}: {node['failureSummary']}" for node in nodes]
    record_figures("axe", f"{name} {scheme}", dict(found))
    assert serious == []


def test_a_page_is_a_few_requests_and_few_bytes(desk, facts, record_figures):
    for name in NAMES:
        desk.responses.clear()
        page = open_page(desk, facts, name)
        if name in {"zone", "login"}:
            page.wait_for_load_state("networkidle")
        documents = [one for one in desk.responses if one.request.resource_type == "document"]
        last = documents[-1]
        files = [one for one in desk.responses if "/static/" in one.url]
        sent = {one.url.rpartition("/")[2].partition("?")[0]: one.request.sizes() for one in files}
        body, wire = len(last.body()), last.request.sizes()["responseBodySize"]
        assert len(sent) <= 5
        assert body < 150_000
        record_figures("bytes", name, f"{body:7,} HTML, {wire:6,} as sent; {1 + len(sent)} requests")
    for one in files:
        wire = one.request.sizes()["responseBodySize"]
        record_figures(
            "bytes", one.url.rpartition("/")[2].partition("?")[0], f"{len(one.body()):7,}, {wire:6,} as sent"
        )
        assert not one.url.partition("?")[0].endswith(".css") or len(one.body()) < 20_000
