"""Headers of every reply, whatever it is."""

from __future__ import annotations

import pytest
from starlette.responses import Response
from starlette.routing import Route

from postbacks.web.security.headers import HEADERS

EVERYTHING = {
    "page": "/zone",
    "static file": "/static/style.css",
    "missing static file": "/static/none.css",
    "missing page": "/no-such-page",
    "redirect": "/zone?name=UTC",
    "probe": "/healthz",
    "unexpected error": "/breaks",
}


@pytest.fixture
def browser(browse):
    """Browser of a dashboard with a page that breaks."""
    browser = browse(broker_url="redis://127.0.0.1:1/0")

    async def breaks(_request):
        raise RuntimeError("<script>secret</script>")

    browser.app.router.routes.insert(0, Route("/breaks", breaks))
    return browser


@pytest.mark.parametrize("path", EVERYTHING.values(), ids=list(EVERYTHING))
def test_every_reply_has_them(browser, path):
    reply = browser.get(path)
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"If-None-Match": "*"}],
    ids=["421", "403", "conditional"],
)
def test_refusals_have_them(browser, headers):
    reply = browser.get("/zone", headers=headers)
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("DELETE", 405), ("OPTIONS", 405)])
def test_other_methods_have_them(browser, method, status):
    reply = browser.request(method, "/zone")
    assert reply.status_code == status
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS


def test_an_unchanged_live_part_has_them(world, browse):
    world.rig.tick()
    browser = browse()
    etag = browser.get("/", headers={"HX-Request": "true"}).headers["ETag"]
    reply = browser.get("/", headers={"HX-Request": "true", "If-None-Match": etag})
    assert reply.status_code == 304
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS


def test_the_policy_forbids_what_it_does_not_name():
    policy = HEADERS["Content-Security-Policy"]
    for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"):
        assert part in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert HEADERS["Cache-Control"] == "no-store"
    assert HEADERS["X-Content-Type-Options"] == "nosniff"
    assert HEADERS["Referrer-Policy"] == "same-origin"  # else forms come with Origin: null


def test_no_page_sets_them_itself(browse):
    browser = browse()

    async def lax(_request):
        return Response(headers={"Referrer-Policy": "unsafe-url", "Cache-Control": "public"})

    browser.app.router.routes.insert(0, Route("/lax", lax))
    headers = browser.get("/lax").headers
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("same-origin", "no-store")


@pytest.mark.parametrize("path", ["/c/token", "/customer", "/customer/", "/customer/nothing"])
def test_from_customers_pages_nobody_gets_an_address(browse, path):
    headers = browse().get(path).headers
    assert {name: headers[name] for name in HEADERS} == {**HEADERS, "Referrer-Policy": "no-referrer"}


def test_an_unexpected_error_tells_nothing_of_itself(browser):
    reply = browser.get("/breaks")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text


def test_a_page_has_no_inline_script_or_style(browser):
    text = browser.get("/zone").text
    assert "<style" not in text
    assert " style=" not in text
    assert " on" not in [part[:3] for part in text.split("<") if "=" in part]
    assert all(' src="/static/' in tag for tag in text.split("<") if tag.startswith("script"))


def test_statics_lead_nowhere_else(browser):
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"):
        assert browser.get(path).status_code == 404
