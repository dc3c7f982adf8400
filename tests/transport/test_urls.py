"""Customers' URLs: what may be one, what one connection serves, and how one is shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import PROPERTY

from postbacks.errors import InvalidUrl
from postbacks.transport.handle import prepare
from postbacks.urls import MAX_URL_LENGTH, check_stored_url, check_url, endpoint_of, read_url, redacted

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


#: A host as it may be written -> as it is sent. Expected values are those of the WHATWG's URL standard.
HOSTS = {
    "💩.example": "xn--ls8h.example",
    "%F0%9F%92%A9.example": "xn--ls8h.example",
    "bücher。example": "xn--bcher-kva.example",
    "BÜCHER．EXAMPLE": "xn--bcher-kva.example",  # noqa: RUF001
    "straße.example": "xn--strae-oqa.example",
    "ＡＢＣ.example": "abc.example",  # noqa: RUF001
    "a\u00adb.example": "ab.example",
    "日本語。JP": "xn--wgv71a119e.jp",
    "a†--": "xn--a---kp0a",
    "x.-y-.ß": "x.-y-.xn--zca",
    "1.\u064a.example": "1.xn--mhb.example",
    "نامه\u200cای.example": "xn--mgba3gch31f060k.example",  # noqa: RUF001
    "≠.example": "xn--1ch.example",
    "XN--BCHER-KVA.example": "xn--bcher-kva.example",
    "a_b.example": "a_b.example",
    "a.example.": "a.example",
    "%61.example": "a.example",
    "127.1": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "0177.0.0.1.": "127.0.0.1",
    "[0:0:0:0:0:0:0:1]": "::1",
    "[::FFFF:8.8.8.8]": "::ffff:808:808",
    "[fe80::1%lo]": "fe80::1%lo",
    "[fe80::1%25lo]": "fe80::1%lo",
    f"{'a' * 63}.example": f"{'a' * 63}.example",
}

#: A host that no domain name is -> what the sentence names.
NO_HOSTS = {
    "a|b.example": "'|' (U+007C VERTICAL LINE)",
    "a*b.example": "'*' (U+002A ASTERISK)",
    "a~b.example": "'~' (U+007E TILDE)",
    "-a.example": "begins with '-' (U+002D HYPHEN-MINUS)",
    "a%20b.example": "' ' (U+0020 SPACE)",
    "a%zz.example": "'%' (U+0025 PERCENT SIGN)",
    "a℀b.example": "'℀' (U+2100 ACCOUNT OF)",
    "\ufffd.example": "U+FFFD",
    "a⒈.example": "'⒈' (U+2488 DIGIT ONE FULL STOP)",
    "\u0301a.example": "U+0301 COMBINING ACUTE ACCENT",
    "a\u200db.example": "U+200D ZERO WIDTH JOINER",
    "يa.example": "U+064A ARABIC LETTER YEH",
    "%ff.example": "no UTF-8",
    "xn--a.example": "'xn--a' stands for no Unicode text",
    "xn--zn7c.example": "'xn--zn7c' stands for no Unicode text",
    "a..example": "between dots is empty",
    ".a.example": "between dots is empty",
    "a.example..": "between dots is empty",
    "\u00ad": "between dots is empty",
    f"{'a' * 64}.example": "64 characters",
    f"{'ü' * 60}.example": "characters as it is sent",
    f"{'a.' * 125}example": "257 characters",
    "1.2.3.4.5": "ends in a number and is no IPv4 address",
    "a.example.256": "ends in a number and is no IPv4 address",
    "[::1::2]": "no IPv6 address",
    "[127.0.0.1]": "no IPv6 address",
    "[fe80::1%25]": "no name of a network interface",
    "１２７.1": "it stands for 127.0.0.1 in other characters",  # noqa: RUF001
    "ⓛocalhost": "it stands for localhost in other characters",
}


@pytest.mark.parametrize(("written", "sent"), HOSTS.items(), ids=map(ascii, HOSTS))
def test_a_host_is_sent_as_browsers_send_it(written, sent):
    """UTS 46, non-transitional, and one spelling of each address; read again it is the same."""
    url = f"http://user@{written}:8080/in"
    assert (read_url(url).host, read_url(url).port) == (sent, 8080)
    assert endpoint_of(url) == endpoint_of(prepare(url).url) == f"http://{sent}:8080"
    assert prepare(prepare(url).url).url == prepare(url).url


@pytest.mark.parametrize(("written", "named"), NO_HOSTS.items(), ids=map(ascii, NO_HOSTS))
def test_a_host_that_cannot_be_sent_to_is_refused_and_the_character_named(written, named):
    """When it is set, when it is validated and when it is sent, in the same words; it has no endpoint."""
    url = f"http://user:hunter2@{written}/in"
    with pytest.raises(InvalidUrl, match="has a host that is no domain name") as refused:
        check_url(url)
    assert named in str(refused.value)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(InvalidUrl) as unsent:
        prepare(url)
    assert str(unsent.value) == str(refused.value)
    assert endpoint_of(url) == ""


def test_a_stored_url_that_cannot_be_sent_to_is_read():
    """Postbacks of such an account are to die with the reason; what is no http or https URL makes the row
    unreadable.
    """
    assert check_stored_url("http://a..example/") == "http://a..example/"
    for url in ("ftp://a.example/", "nowhere", "http://a.example/\ud800"):
        with pytest.raises(InvalidUrl):
            check_stored_url(url)


@pytest.mark.parametrize("url", GOOD)
def test_an_absolute_http_or_https_url_is_taken_as_it_is(url):
    """The URL comes back as it was given."""
    assert check_url(url) == url


@pytest.mark.parametrize(("url", "fault"), BAD.items(), ids=[ascii(url)[:40] for url in BAD])
def test_any_other_url_is_refused_with_a_sentence(url, fault):
    """The refusal is one sentence, which names the fault."""
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
    """An endpoint is what one connection serves, whatever path and user; the root's dot and upper case make no
    other.
    """
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
    """The password stays hidden whatever is wrong with the URL."""
    with pytest.raises(InvalidUrl) as refused:
        check_url(f"https://user:hunter2@{fault}?token=hunter2")
    assert "hunter2" not in str(refused.value)


_pieces = st.sampled_from(
    [
        "http",
        "https",
        "://",
        ":",
        "/",
        "@",
        "?",
        "#",
        "[",
        "]",
        "::1",
        "%",
        "a.example",
        "80",
        "💩",
        "xn--",
        "。",
    ]
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
    prepared = prepare(taken)
    assert prepared.url.isascii()
    assert endpoint_of(taken) == endpoint_of(prepared.url)
    assert prepare(prepared.url).url == prepared.url


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
    from postbacks.broker import url as broker_url

    assert "SECRET" not in broker_url.redacted_broker_url(url)
