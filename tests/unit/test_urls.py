"""Customers' URLs: what may be one, what one connection serves, and how one is shown."""

from __future__ import annotations

import json

import pytest
from events import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from postbacks.errors import InvalidUrl
from postbacks.urls import MAX_URL_LENGTH, check_url, endpoint_of, redacted

GOOD = [
    "http://a.example",
    "https://a.example/",
    "HTTPS://A.example/Path?b=c&d#fragment",
    "http://127.0.0.1:8080/in",
    "http://[::1]:8080/in",
    "https://user:p%40ss@a.example/",
    "https://müller.example/straße",
    "http://a.example/%20",
    "http://a.example:65535/",
]

BAD = {
    17: "text, not int",
    None: "text, not NoneType",
    b"http://a.example/": "text, not bytes",
    "": "no absolute http or https URL",
    "a.example/in": "no absolute http or https URL",
    "//a.example/in": "no absolute http or https URL",
    "/in": "no absolute http or https URL",
    "ftp://a.example/in": "no absolute http or https URL",
    "file:///etc/passwd": "no absolute http or https URL",
    "javascript:alert(1)": "no absolute http or https URL",
    "http://": "no host",
    "http:///in": "no host",
    "http://:80/in": "no host",
    "http://a.example:0/": "port 0",
    "http://a.example:65536/": "cannot be read",
    "http://a.example:http/": "cannot be read",
    "http://[::1/": "cannot be read",
    "http://a example/": "space or control character",
    "http://a.example/a b": "space or control character",
    "http://a.example/\r\nHost: b.example": "space or control character",
    "http://a.example/\x00": "space or control character",
    f"http://{'ü' * 70}.example/": "no domain name",
    "http://a.example/\ud800": "no Unicode text",
}


@pytest.mark.parametrize("url", GOOD)
def test_an_absolute_http_or_https_url_is_taken_as_it_is(url):
    """The URL comes back as it was given."""
    assert check_url(url) == url


@pytest.mark.parametrize(("url", "fault"), BAD.items(), ids=[ascii(url)[:40] for url in BAD])
def test_any_other_url_is_refused_with_a_sentence(url, fault):
    """One sentence, which names the fault."""
    with pytest.raises(InvalidUrl, match=fault) as refused:
        check_url(url)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


def test_a_url_has_at_most_2048_characters():
    """The last one that is taken has 2,048; the error of a longer one does not repeat it."""
    longest = "http://a.example/".ljust(MAX_URL_LENGTH, "x")
    assert MAX_URL_LENGTH == 2048
    assert check_url(longest) == longest
    with pytest.raises(InvalidUrl, match="2049 characters") as refused:
        check_url(longest + "x")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://a.example/in", "http://a.example:80"),
        ("https://a.example/in?x=1", "https://a.example:443"),
        ("HTTP://A.Example:80/other", "http://a.example:80"),
        ("https://user:secret@a.example:8443/", "https://a.example:8443"),
        ("http://a.example./", "http://a.example:80"),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(url, endpoint):
    """What one connection serves, whatever path and user; the root's dot and upper case make no other."""
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@a.example:8443/in", "https://a.example:8443/in"),
        ("https://secret@a.example/in", "https://a.example/in"),
        ("https://a.example/in?token=secret&b=secret", "https://a.example/in?token=…&b=…"),
        ("https://a.example/in#secret", "https://a.example/in"),
        ("http://[::1/secret", "(unreadable URL)"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    """No user, no password, no value of the query, no fragment."""
    assert redacted(url) == shown


@pytest.mark.parametrize("fault", ["a b", "x:0/", "x:port/"])
def test_an_error_about_a_url_never_shows_its_password(fault):
    """What is wrong with it does not matter."""
    with pytest.raises(InvalidUrl) as refused:
        check_url(f"https://user:hunter2@{fault}?token=hunter2")
    assert "hunter2" not in str(refused.value)


_pieces = st.sampled_from(
    ["http", "https", "://", ":", "/", "@", "?", "#", "[", "]", "::1", "%", "a.example", "80"]
)
_urls = st.lists(_pieces | st.text(st.characters(exclude_categories=()), max_size=4), max_size=10)


@PROPERTY
@given(_urls.map("".join) | _urls.map(lambda pieces: "http://" + "".join(pieces)))
def test_whatever_is_given_it_is_refused_or_it_can_be_kept_and_sent(url):
    """Nothing but InvalidUrl is raised; what is taken has an endpoint and can be written down."""
    try:
        taken = check_url(url)
    except InvalidUrl:
        return
    assert endpoint_of(taken).startswith(("http://", "https://"))
    assert json.loads(json.dumps(taken)) == taken
    taken.encode()
    redacted(taken).encode()


@pytest.mark.parametrize(
    "url",
    [
        "https://user:SECRET#x@host/",
        "https://user:SECRET?x@host/",
        "https://user:SEC/RET@host/",
        "https://user:SECRET@ho\u2100st/",
        "https://user:SECRET@host:port/",
    ],
)
def test_a_password_that_is_not_encoded_is_not_shown_either(url):
    """Neither in the error nor in what listings show."""
    with pytest.raises(InvalidUrl) as error:
        check_url(url)
    assert "SEC" not in str(error.value)
    assert "SEC" not in redacted(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:SECRET@host/0",
        "redis://user:SECRET@host/0",
        "redis://:p@SECRET@host/0",
        "redis://:p/SECRET@host/0",
        "unix:///s.sock?db=0&password=SECRET",
        "redis://host/0?password=SECRET&db=1",
    ],
)
def test_a_brokers_password_is_not_shown_in_whatever_form_it_is_given(url):
    """redis-py takes all of these."""
    from postbacks import broker

    assert "SECRET" not in broker.redacted(url)
