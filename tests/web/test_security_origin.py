"""Origin of a request: what changes anything comes from a page of this dashboard."""

from __future__ import annotations

import pytest

TOKEN = "t" * 16
HERE = "http://127.0.0.1"


def post(browser, **headers):
    """Log in with these headers alone."""
    browser.headers.pop("Sec-Fetch-Site", None)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return browser.post("/login", data={"secret": TOKEN}, headers=named)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "same-origin", "Origin": HERE},
        {"Sec_Fetch_Site": "same-origin"},
        {"Origin": HERE},
        {"Sec_Fetch_Site": "same-origin", "Origin": "null"},  # a page without a referrer
        {"Origin": "https://127.0.0.1"},  # a proxy ends TLS
    ],
    ids=str,
)
def test_our_own_pages_may_change_something(browse, headers):
    assert post(browse(web_token=TOKEN), **headers).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "same-site", "Origin": "https://other.example"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "cross-site", "Origin": HERE},
        {"Sec_Fetch_Site": "same-origin", "Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "http://evil.example/127.0.0.1"},
        {"Origin": ""},
        {"Origin": "http://["},
    ],
    ids=str,
)
def test_others_may_not(browse, headers):
    reply = post(browse(web_token=TOKEN), **headers)
    assert reply.status_code == 403
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_every_unsafe_method_is_looked_at(browse, method):
    browser = browse()
    browser.headers["Sec-Fetch-Site"] = "cross-site"
    assert browser.request(method, "/zone").status_code == 403


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "navigate", 200),
        ("same-site", "navigate", 200),
        ("none", "navigate", 200),
        ("cross-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("same-site", "no-cors", 403),
        ("same-origin", "cors", 200),
    ],
)
def test_another_site_may_lead_people_here_and_embed_nothing(browse, site, mode, status):
    reply = browse().get("/zone", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode})
    assert reply.status_code == status


@pytest.mark.parametrize(
    "back",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "", "/\t/evil"],
)
def test_nobody_is_led_elsewhere(browse, back):
    assert browse().get("/zone", params={"name": "UTC", "back": back}).headers["Location"] == "/"
    reply = browse(web_token=TOKEN).post("/login", data={"secret": TOKEN, "next": back})
    assert reply.headers["Location"] == "/"
