"""Every way in which a receiver can misbehave: what is recorded, how long it may take, what it may cost."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from transport.conftest import ToxicProcess
from transport.toxic_receiver import AT_ONCE, PATHS

from postbacks.settings import Settings
from postbacks.transport.client import CurlClient
from postbacks.transport.handle import MAX_BODY_BYTES
from postbacks.transport.outcomes import Outcome
from postbacks.transport.profile import Profile, Tls
from postbacks.transport.transfer import MAX_HEADER_BYTES, Transfer

CONNECT_S = ANSWER_S = 0.5
MARGIN_S = 8.0
PATIENCE_S = 10.0
LIMITS_S = {"": 0.0, "connect": CONNECT_S, "answer": ANSWER_S, "body": ANSWER_S, "body or sooner": 0.0}
#: How much a transfer may make the process grow, at its worst moment.
GROWTH_BYTES = 1_000_000
BUFFER_BYTES = 16_384

NOT_HTTP = "the answer is no HTTP"
NO_CLEAR_END = "its header gives its body no clear end"
UNREAD = "its body was not read to the end"
BROKE_OFF = "the answer broke off before its header was whole"
NO_ANSWER = "closed without an answer"


class Case(NamedTuple):
    """Case: what is to come of a POST.

    Attributes:
        outcome: its word; two, where the system tells a reset from a refusal only by chance.
        says: part of its detail.
        waits: which limit it runs into: a key of ``LIMITS_S``.
        status: of the answer.
    """

    outcome: str
    says: str = ""
    waits: str = ""
    status: int | None = None


def delivered(says: str = "", waits: str = "") -> Case:
    """A header with 200 had come whole."""
    return Case("delivered", says, waits, 200)


def status(number: int, says: str = "", waits: str = "") -> Case:
    """Another status."""
    return Case("status", says or f"answered {number}; only 200 counts", waits, number)


BY_PATH = {
    "honest": delivered(),
    "no": status(500),
    "silence": Case("answer_timeout", "no whole header of an answer within 0.5 s", "answer"),
    "half-a-status-line": Case("answer_timeout", waits="answer"),
    "half-a-header": Case("answer_timeout", waits="answer"),
    "header-without-end": Case("answer_timeout", waits="answer"),
    "half-closed": Case("broken_answer", NO_ANSWER),
    "header-then-silence": delivered(UNREAD, "body"),
    "chunk-then-silence": delivered(UNREAD, "body"),
    "drip-status-line": Case("answer_timeout", waits="answer"),
    "drip-header": Case("answer_timeout", waits="answer"),
    "drip-header-lines": Case("answer_timeout", waits="answer"),
    "drip-100-continue": Case("answer_timeout", waits="answer"),
    "drip-body": delivered(UNREAD, "body"),
    "drip-chunks": delivered(UNREAD, "body"),
    "drip-body-of-500": status(500, UNREAD, "body"),
    "close": Case("broken_answer", NO_ANSWER),
    "reset": Case("broken_answer", "the connection broke"),
    "reset-in-status-line": Case("broken_answer"),
    "reset-in-header": Case("broken_answer"),
    "reset-in-body": delivered(UNREAD),
    "close-in-status-line": Case("broken_answer"),
    "close-in-header": Case("broken_answer", BROKE_OFF),
    "close-before-the-last-byte-of-the-header": Case("broken_answer", BROKE_OFF),
    "close-before-the-body": delivered(UNREAD),
    "close-in-the-body": delivered(UNREAD),
    "close-in-a-chunk": delivered(UNREAD),
    "body-100-mb": delivered(UNREAD),
    "body-100-mb-of-500": status(500, UNREAD),
    "body-without-end": delivered(UNREAD),
    "chunks-without-end": delivered(UNREAD),
    "chunks-of-a-byte-without-end": delivered(UNREAD),
    "chunk-extension-without-end": delivered(UNREAD, "body or sooner"),
    "trailers-without-end": delivered(UNREAD),
    "gzip-bomb": delivered(),
    "gzip-bomb-as-transfer-coding": delivered(NO_CLEAR_END),
    "header-of-1-mb": Case("too_large"),
    "header-line-without-end": Case("too_large"),
    "headers-10000": Case("too_large"),
    "headers-10000-short": Case("too_large"),
    "headers-without-end": Case("too_large"),
    "flood-of-100": Case("too_large", "over 65536 bytes"),
    "flood-of-103": Case("too_large", "over 65536 bytes"),
    "status-line-without-end": Case("too_large"),
    "not-http": Case("broken_answer", NOT_HTTP),
    "http-0.9": Case("broken_answer", NOT_HTTP),
    "http-2": Case("broken_answer", NOT_HTTP),
    "http-2-frames": Case("broken_answer", NOT_HTTP),
    "http-1.2": Case("broken_answer", NOT_HTTP),
    "icy": Case("broken_answer", NOT_HTTP),
    "status-word": Case("broken_answer", NOT_HTTP),
    "status-missing": Case("broken_answer", NOT_HTTP),
    "status-of-two-digits": Case("broken_answer", NOT_HTTP),
    "status-of-four-digits": Case("broken_answer", NOT_HTTP),
    "status-plus": Case("broken_answer", NOT_HTTP),
    "status-000": Case("broken_answer", NOT_HTTP),
    "status-999": status(999),
    "lower-case": Case("broken_answer", NOT_HTTP),
    "blank-line-first": Case("broken_answer", NOT_HTTP),
    "500-with-a-200-in-its-header": status(500),
    "500-with-a-200-in-its-body": status(500),
    "header-without-colon": Case("broken_answer", "has no colon"),
    "header-with-nul": Case("broken_answer", "holds a NUL byte"),
    "header-with-cr": Case("broken_answer", "holds a carriage return"),
    "switching-protocols": Case("broken_answer"),
    "100-then-garbage": Case("broken_answer", NOT_HTTP),
    "100-then-close": Case("broken_answer"),
    "chunk-size-no-number": delivered(UNREAD),
    "chunk-size-negative": delivered(UNREAD),
    "chunk-size-too-large": delivered(UNREAD),
    "chunk-longer-than-its-size": delivered(UNREAD),
    # The first POST of each, which fails, was the fixture's (test_odd_headers.py).
    "two-lengths": delivered(NO_CLEAR_END),
    "length-no-number": delivered(NO_CLEAR_END),
    "length-negative": delivered(NO_CLEAR_END),
    "length-too-large": delivered(NO_CLEAR_END),
    "length-and-chunks": delivered(NO_CLEAR_END),
    "unknown-transfer-coding": delivered(NO_CLEAR_END),
    "204-with-a-body": status(204),
    "redirect-to-itself": status(307),
    "challenge": status(401),
    "twice": delivered(),
}

BY_PORT = {
    "answers-first": delivered(),
    "answers-first-and-resets": delivered(),
    "resets-at-once": Case("broken_answer refused"),
    "closes-at-once": Case("broken_answer refused"),
    "never-reads": Case("answer_timeout", waits="answer"),
    "stalls-in-the-handshake": Case("connect_timeout", "no connection within 0.5 s", "connect"),
    "drips-in-the-handshake": Case("connect_timeout", waits="connect"),
    "resets-in-the-handshake": Case("tls", "the TLS connection could not be made"),
    "closes-in-the-handshake": Case("tls", "the TLS connection could not be made"),
    "plain-http-for-tls": Case("tls", "the TLS connection could not be made"),
    "fatal-alert": Case("tls", "the server refused the TLS handshake"),
    "good": delivered(),
    "wrong-host": Case("tls", "the server's certificate is for another host"),
    "expired": Case("tls", "the server's certificate has expired"),
    "not-yet-valid": Case("tls", "the server's certificate is not valid yet"),
    "self-signed": Case("tls", "self-signed: its issuer is not known"),
    "tls-1.0": Case("tls", "the server's TLS is too old: 1.2 is the least"),
    "tls-1.1": Case("tls", "the server's TLS is too old: 1.2 is the least"),
    "tls-1.2": delivered(),
}

CASES = [(path, "plain", case) for path, case in BY_PATH.items()]
CASES += [("honest", port, case) for port, case in BY_PORT.items()]


class Sender:
    """An adapter with short limits, and what its transfers cost."""

    def __init__(self, toxic: ToxicProcess) -> None:
        self.toxic = toxic
        settings = Settings(
            allowed_networks="127.0.0.0/8", connect_timeout_s=CONNECT_S, answer_timeout_s=ANSWER_S
        )
        self.adapter = CurlClient(settings)
        trusting = Tls(ca_bundle=toxic.certificates.authority.pem)
        self.profile = replace(Profile.default(settings), tls=trusting)
        self.growth_bytes = 0

    def transfer(self, path: str, port: str, case: Case) -> Transfer:
        """Make a transfer; a limit that is not to be met leaves a slow machine time."""
        profile = self.profile
        if case.waits != "connect":
            profile = replace(profile, connect_timeout_s=PATIENCE_S)
        if LIMITS_S[case.waits] == 0 or case.waits == "connect":
            profile = replace(profile, answer_timeout_s=PATIENCE_S)
        return Transfer(self.toxic.url(path, port), b"<POSTBACK/>", ["X-Test: yes"], profile)

    def post(self, transfer: Transfer) -> tuple[Outcome, float]:
        """Make it; returns the outcome and the seconds by our own clock."""
        gc.collect()
        before = resident_bytes()
        self.growth_bytes = 0
        began_s = time.monotonic()
        self.adapter.start(transfer)
        while not (ended := self.adapter.wait(0.05)):
            self.growth_bytes = max(self.growth_bytes, resident_bytes() - before)
        self.growth_bytes = max(self.growth_bytes, resident_bytes() - before)
        return ended[0][1], time.monotonic() - began_s


def resident_bytes() -> int:
    """Return what this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def sender(toxic) -> Iterator[Sender]:
    """Sender that has seen everything once, all at the same time: the memory that this takes is no growth."""
    made = Sender(toxic)
    for path, port, case in CASES:
        made.adapter.start(made.transfer(path, port, case))
    while made.adapter.wait(0.05) or len(made.adapter):
        pass
    yield made
    made.adapter.close()


def test_everything_that_the_receiver_can_do_is_in_the_table():
    """Each path and port has its expected outcome."""
    assert set(BY_PATH) == set(PATHS)
    assert set(BY_PORT) >= set(AT_ONCE)


@pytest.mark.parametrize(("path", "port", "case"), CASES, ids=[f"{port}-{path}" for path, port, _ in CASES])
def test_a_toxic_answer_has_its_outcome_in_time_and_costs_no_memory(sender, path, port, case):
    """The word and the detail recorded, the limit it ran into and no more, less than 1 MB at the worst moment."""
    transfer = sender.transfer(path, port, case)
    outcome, took_s = sender.post(transfer)
    print(f"toxic | {path if port == 'plain' else port} | {outcome.name} | {outcome.detail} | {took_s:.2f}")
    assert outcome.name in case.outcome.split(), outcome.detail
    assert outcome.status == case.status
    assert case.says in outcome.detail
    limit_s = LIMITS_S[case.waits]
    assert limit_s - 0.05 <= took_s < limit_s + MARGIN_S
    assert abs(took_s - outcome.elapsed_s) < MARGIN_S
    assert sender.growth_bytes < GROWTH_BYTES
    assert transfer.header_bytes <= MAX_HEADER_BYTES + BUFFER_BYTES * 8
    assert transfer.body_bytes <= MAX_BODY_BYTES + BUFFER_BYTES
    assert len(transfer.excerpt) <= 256
