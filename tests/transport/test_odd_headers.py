"""Answers whose status line is in order and whose header is not: which count, and what is left on their connections."""

from __future__ import annotations

import gzip
import json
import random
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from encodings.aliases import aliases
from pathlib import Path

import pytest
from events import EVENT
from helpers import set_account
from transport.test_kept_connections import NO, OK, Listener

from postbacks import send_postback
from postbacks.settings import Settings
from postbacks.transport.answer import MISREAD, Misread, excerpt_of
from postbacks.transport.classify import _HEADER_PHRASES
from postbacks.transport.client import CurlClient
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import Transfer

#: Long enough that nothing here comes near it by itself.
ANSWER_S = 8
SETTINGS = Settings(allowed_networks="127.0.0.0/8", connect_timeout_s=5, answer_timeout_s=ANSWER_S)

#: Header lines -> counted at the first POST, and the connection is then closed.
COUNTED = {
    "coding-unknown": b"Transfer-Encoding: utf-8\r\n",
    "coding-unknown-and-length": b"Transfer-Encoding: utf-8\r\nContent-Length: 5\r\n",
    "coding-unknown-behind-length": b"Content-Length: 5\r\nTransfer-Encoding: utf-8\r\n",
    "coding-empty": b"Transfer-Encoding:\r\nContent-Length: 5\r\n",
    "coding-identity": b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    "coding-behind-chunked": b"Transfer-Encoding: chunked, gzip\r\n",
    "coding-before-chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked-twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked-with-parameter": b"Transfer-Encoding: chunked;q=1\r\n",
    "chunked-and-length": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "length-with-space-before-its-colon": b"Content-Length : 5\r\n",
    "coding-with-space-before-its-colon": b"Transfer-Encoding : chunked\r\n",
    "length-too-large": b"Content-Length: 99999999999999999999999\r\n",
}
NO_NUMBER = "the answer's Content-Length is no number"
#: libcurl gives the header up at this line, and ignores it from the next POST on.
COUNTED_NEXT_TIME = {
    "length-empty": b"Content-Length:\r\n",
    "length-word": b"Content-Length: many\r\n",
    "length-negative": b"Content-Length: -5\r\n",
    "length-signed": b"Content-Length: +5\r\n",
    "length-fraction": b"Content-Length: 5.0\r\n",
    "length-with-unit": b"Content-Length: 5 bytes\r\n",
    "length-hexadecimal": b"Content-Length: 0x5\r\n",
    "length-list": b"Content-Length: 5, 6\r\n",
    "two-lengths": b"Content-Length: 2\r\nContent-Length: 5\r\n",
    "two-lengths-one-empty": b"Content-Length:\r\nContent-Length: 5\r\n",
}
#: libcurl gives the header up at this line, every time.
REFUSED = {
    "no-colon": (b"no header\r\n", "a line in the answer's header has no colon"),
    "first-line-folded": (b" folded\r\n", "a line in the answer's header has no colon"),
    "nul": (b"X-Nul: \0\r\n", "a line in the answer's header holds a NUL byte"),
    "carriage-return": (b"X-Cr: a\rb\r\n", "a line in the answer's header holds a carriage return"),
}
#: Odd, and in order: the connection is kept.
KEPT = {
    "lengths-alike": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "length-list-alike": b"Content-Length: 5, 5\r\n",
    "folded": b"X-A: a\r\n b\r\nContent-Length: 5\r\n",
    "length-folded": b"Content-Length:\r\n 5\r\n",
    "bare-lf": b"Content-Length: 5\n",
    "no-name": b": x\r\nContent-Length: 5\r\n",
    "latin-1": b"X-L: \xe4\r\nContent-Length: 5\r\n",
}
STATUS_LINE = b"HTTP/1.1 %d Any\r\n"


class Peer:
    """A receiver whose answers to ``/odd`` have this header, with an answer of 200 behind their body."""

    def __init__(self, lines: bytes, body: bytes, status: int = 200) -> None:
        self._odd = STATUS_LINE % status + lines + b"\r\n" + body
        self.listener = Listener(self._serve)
        MISREAD.discard(self.listener.url("/odd"))  # its port may have been another test's
        self.adapter = CurlClient(SETTINGS)

    def _serve(self, connection: socket.socket, path: str) -> bool:
        connection.sendall(self._odd if path == "/odd" else NO)
        return True

    def post(self, path: str) -> Outcome:
        """POST to this path."""
        return self.adapter.post(
            Transfer(self.listener.url(path), b"<POSTBACK/>", [], Profile.default(SETTINGS))
        )

    def close(self) -> None:
        """Release both."""
        self.adapter.close()
        self.listener.close()


@contextmanager
def answering(lines: bytes, body: bytes = b"hello" + OK, status: int = 200) -> Iterator[Peer]:
    """A peer for the length of a test."""
    peer = Peer(lines, body, status)
    try:
        yield peer
    finally:
        peer.close()


@pytest.mark.parametrize("lines", COUNTED.values(), ids=COUNTED)
def test_a_200_whose_body_has_no_clear_end_counts_and_its_connection_is_not_used_again(lines):
    """A second 200 behind the answer is not the next postback's, which gets its own 500."""
    with answering(lines) as peer:
        outcomes = [peer.post(path) for path in ("/odd", "/no", "/odd", "/no")]
        assert [outcome.status for outcome in outcomes] == [200, 500, 200, 500]
        assert outcomes[0].detail.startswith("its header gives its body no clear end")
        assert outcomes[0].elapsed_s < ANSWER_S / 2  # it did not wait for the end of the body
        assert peer.listener.connections >= 3
        assert peer.listener.paths == ["/odd", "/no", "/odd", "/no"]


@pytest.mark.parametrize("lines", COUNTED_NEXT_TIME.values(), ids=COUNTED_NEXT_TIME)
def test_a_length_that_is_no_number_fails_once_and_is_ignored_from_then_on(lines):
    """The first POST shows that libcurl cannot read it, every other one counts; no connection is used again."""
    with answering(lines) as peer:
        outcomes = [peer.post(path) for path in ("/odd", "/odd", "/no", "/odd", "/no")]
        assert [outcome.status for outcome in outcomes] == [None, 200, 500, 200, 500]
        assert outcomes[0].name == "broken_answer"
        assert NO_NUMBER in outcomes[0].detail
        assert outcomes[1].elapsed_s < ANSWER_S / 2
        assert peer.listener.paths == ["/odd", "/odd", "/no", "/odd", "/no"]


@pytest.mark.parametrize(("lines", "words"), REFUSED.values(), ids=REFUSED)
def test_a_header_that_libcurl_gives_up_is_no_answer_and_says_why(lines, words):
    """Nobody knows whether it had an end: never a success."""
    with answering(lines + b"Content-Length: 5\r\n") as peer:
        for _ in range(2):
            outcome = peer.post("/odd")
            assert (outcome.name, outcome.status) == ("broken_answer", None)
            assert outcome.detail.startswith(words)
        assert peer.post("/no").status == 500


def test_the_words_for_each_header_that_cannot_be_read_stand_in_receiving_md():
    text = (Path(__file__).parents[2] / "docs/receiving.md").read_text()
    words = {NO_NUMBER, *(words for _, words in REFUSED.values())}
    assert words == {phrase for _, phrase in _HEADER_PHRASES}
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("lines", "outcome", "words"),
    [
        (b"a:\r\n" * 4_999, "delivered", ""),
        (b"a:\r\n" * 5_000, "too_large", "the answer's header is larger than the limit"),
        (b"a: " + b"x" * 66_000 + b"\r\n", "too_large", "the answer's header is over 65536 bytes"),
    ],
    ids=["lines", "too-many-lines", "too-many-bytes"],
)
def test_a_header_that_is_too_large_fails_with_the_words_of_receiving_md(lines, outcome, words):
    with answering(lines + b"Content-Length: 0\r\n", b"") as peer:
        said = peer.post("/odd")
    assert said.name == outcome
    assert said.detail.partition(" (")[0] == words
    assert words in (Path(__file__).parents[2] / "docs/receiving.md").read_text()


@pytest.mark.parametrize("lines", KEPT.values(), ids=KEPT)
def test_an_odd_header_with_one_clear_length_keeps_its_connection(lines):
    with answering(lines, b"hello") as peer:
        outcomes = [peer.post(path) for path in ("/odd", "/no", "/odd", "/no")]
        assert [outcome.status for outcome in outcomes] == [200, 500, 200, 500]
        assert [outcomes[0].detail, outcomes[2].detail] == ["", ""]
        assert peer.listener.connections == 1


@pytest.mark.parametrize("lines", [b"Transfer-Encoding: utf-8\r\n", b"Content-Length:\r\n"])
def test_half_a_header_is_no_answer_though_its_framing_is_odd(lines):
    """A header without its empty line fails by its time, or where the connection ends."""
    peer = Peer(b"", b"")
    half = STATUS_LINE % 200 + lines

    def serve(connection: socket.socket, path: str) -> bool:
        connection.sendall(half)
        return False

    peer.listener.close()
    peer.listener = Listener(serve)
    try:
        assert [peer.post("/odd").status for _ in range(3)] == [None] * 3
    finally:
        peer.close()


@pytest.mark.parametrize("lines", [b"Transfer-Encoding: utf-8\r\n", b"Content-Length: many\r\n"])
def test_a_failure_whose_body_has_no_clear_end_keeps_its_status_and_its_excerpt(lines):
    with answering(lines, b"out of order", status=503) as peer:
        peer.post("/odd")
        outcome = peer.post("/odd")
        assert (outcome.name, outcome.status, outcome.excerpt) == ("status", 503, "out of order")
        assert outcome.elapsed_s < ANSWER_S / 2


def test_a_url_whose_lengths_are_in_order_again_keeps_its_connection():
    """Ignoring them costs a connection a postback: it ends with the first answer that is in order."""
    with answering(b"Content-Length: 5\r\n", b"hello") as peer:
        MISREAD.add(peer.listener.url("/odd"))
        outcomes = [peer.post("/odd") for _ in range(4)]
        assert [outcome.status for outcome in outcomes] == [200] * 4
        assert peer.listener.connections == 2


def test_of_misread_urls_the_latest_are_remembered():
    misread = Misread(urls_max=2)
    for name in ("a", "b", "c"):
        misread.add(name)
    assert [name in misread for name in ("a", "b", "c")] == [False, True, True]


# -- the excerpt of a failure ----------------------------------------------------------------------

WORDS = "Störung: außer Betrieb"
BOMB = gzip.compress(b"a" * 50_000_000)


def bare_deflate(data: bytes) -> bytes:
    """Deflate without zlib's frame, as some servers send it."""
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


def chunked(data: bytes) -> bytes:
    """In chunks of ten bytes."""
    parts = [data[at : at + 10] for at in range(0, len(data), 10)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


READ = {
    "utf-8": (b"", WORDS.encode(), WORDS, ""),
    "latin-1": (b"Content-Type: text/html; charset=ISO-8859-1\r\n", WORDS.encode("latin-1"), WORDS, ""),
    "quoted": (b'Content-Type: text/html;Charset="windows-1252"\r\n', WORDS.encode("cp1252"), WORDS, ""),
    "shift-jis": (b"Content-Type: text/plain; charset=Shift_JIS\r\n", "故障".encode("shift_jis"), "故障", ""),
    "windows-31j": (b"Content-Type: text/plain; charset=Windows-31J\r\n", "故障".encode("cp932"), "故障", ""),
    "x-sjis": (b"Content-Type: text/plain; charset=x-sjis\r\n", "故障".encode("shift_jis"), "故障", ""),
    "utf-16": (b"Content-Type: text/plain; charset=utf-16\r\n", WORDS.encode("utf-16"), WORDS, ""),
    "gzip": (b"Content-Encoding: gzip\r\n", gzip.compress(WORDS.encode()), WORDS, ""),
    "x-gzip": (b"Content-Encoding: x-gzip\r\n", gzip.compress(WORDS.encode()), WORDS, ""),
    "deflate": (b"Content-Encoding: deflate\r\n", zlib.compress(WORDS.encode()), WORDS, ""),
    "bare-deflate": (b"Content-Encoding: deflate\r\n", bare_deflate(WORDS.encode()), WORDS, ""),
    "gzip-latin-1": (
        b"Content-Encoding: gzip\r\nContent-Type: text/plain; charset=latin1\r\n",
        gzip.compress(WORDS.encode("latin-1")), WORDS, "",
    ),
    "gzip-long": (b"Content-Encoding: gzip\r\n", gzip.compress(b"no. " * 9000), "no. " * 64, ""),
    "gzip-cut-short": (b"Content-Encoding: gzip\r\n", gzip.compress(WORDS.encode())[:25], None, ""),
    "gzip-without-content": (b"Content-Encoding: gzip\r\n", gzip.compress(b""), "", ""),
    "gzip-of-which-nothing-is-kept": (
        b"Content-Encoding: gzip\r\n", gzip.compress(WORDS.encode())[:10], "", "too little of the gzip was kept",
    ),
    "bomb": (b"Content-Encoding: gzip\r\n", BOMB[:40_000], "a" * 256, ""),
    "no-gzip": (b"Content-Encoding: gzip\r\n", b"plain", "plain", "not the gzip that its header names"),
    "brotli": (b"Content-Encoding: br\r\n", b"\x0b\x02\x80", "", "not shown: compressed as br"),
    "no-token": (b"Content-Encoding: br, \x9b2J\x01\r\n", b"\x0b", "", "compressed as br, ?2j?"),
    "twice": (b"Content-Encoding: gzip, gzip\r\n", b"\x1f\x8b", "", "compressed as gzip, gzip"),
    "unknown": (b"Content-Type: text/plain; charset=klingon\r\n", b"no", "no", "not the klingon that its header names; read as UTF-8"),
    "no-text": (b"Content-Type: text/plain; charset=rot13\r\n", b"no", "no", "not the rot13 that"),
    "escapes": (
        b"Content-Type: text/plain; charset=unicode_escape\r\n", rb"\u0041", r"\u0041", "not the unicode_escape that",
    ),
    "idna": (b"Content-Type: text/plain; charset=idna\r\n", b"xn--a", "xn--a", "not the idna that"),
    "no-byte-order": (b"Content-Type: a/b; charset=utf-16\r\n", b"no. ", "no. ", "not the utf-16 that"),
    "cut-character": (b"", b"x" * 255 + "ö".encode(), "x" * 255, ""),
}  # fmt: skip


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(("lines", "body", "text", "fault"), READ.values(), ids=READ)
def test_the_excerpt_of_a_failure_is_text_as_its_header_says(lines, body, text, fault, framing):
    """Inflated and decoded, no more than 256 bytes of it; and in words where that could not be done."""
    if framing == "chunks":
        lines, body = lines + b"Transfer-Encoding: chunked\r\n", chunked(body)
    else:
        lines += b"Content-Length: %d\r\n" % len(body)
    with answering(lines, body, status=500) as peer:
        outcome = peer.post("/odd")
    assert outcome.status == 500
    assert fault in outcome.detail
    assert len(outcome.excerpt.encode()) <= 512
    if text is None:
        assert WORDS.startswith(outcome.excerpt)
    elif framing == "length" or len(text) < 100:
        assert outcome.excerpt == text
    else:  # the sizes of chunks are among the 256 bytes that are kept
        assert text.startswith(outcome.excerpt)
        assert outcome.excerpt


def test_no_encoding_of_python_and_no_bytes_break_an_excerpt():
    """A loop must outlive whatever a receiver names."""
    chance = random.Random(5)
    for name in sorted({*aliases, *aliases.values()}):
        for size in (1, 2, 3, 50, 256):
            lines = [b"Content-Type: text/plain; charset=" + name.encode()]
            text, _ = excerpt_of(lines, chance.randbytes(size), 256)
            assert isinstance(text, str), name


def test_an_excerpt_takes_no_more_of_the_ledger_than_twice_its_bytes():
    """A receiver could fill it with what grows sixfold as JSON."""
    for body in (b"\x01" * 256, b"\xff" * 256, b'"' * 256, b"\xc3\xbc" * 128, b"x" * 256):
        text, _ = excerpt_of([], body, 256)
        assert 400 < len(json.dumps(text, ensure_ascii=False).encode()) <= 514 or text == body.decode()


# -- the whole way ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "outcomes"),
    [
        (b"Transfer-Encoding: utf-8\r\n", ["delivered"]),
        (b"Content-Length:\r\n", ["broken_answer", "delivered"]),
        (b"no header\r\n", ["broken_answer"] * 6),
    ],
)
def test_a_postback_to_such_a_receiver_ends_as_its_answer_is_judged(rig, lines, outcomes):
    """Each attempt is one POST, and the ledger says what each was."""
    posts: list[str] = []

    def serve(connection: socket.socket, path: str) -> bool:
        posts.append(path)
        connection.sendall(STATUS_LINE % 200 + lines + b"\r\n")
        return True

    listener = Listener(serve, end=b"</POSTBACK>")
    MISREAD.discard(listener.url("/"))
    try:
        set_account("acme", url=listener.url("/"))
        postback_id = send_postback.delay("acme", EVENT).id
        rig.tick()
        for _ in outcomes:
            rig.deliver()
            rig.advance(301)
            rig.tick()
        record = rig.record(postback_id)
    finally:
        listener.close()
    assert [attempt.outcome for attempt in record.attempts] == outcomes
    assert record.state == ("delivered" if outcomes[-1] == "delivered" else "dead")
    assert len(posts) == len(outcomes)
