"""Outcomes of a POST: only 200 is success, and every end has its word."""

from __future__ import annotations

import re
from pathlib import Path

import pycurl
import pytest
from transfers import judged

import postbacks
from postbacks.transport.classify import CURL_CODES
from postbacks.transport.outcomes import OUTCOMES
from postbacks.transport.transfer import MAX_HEADER_BYTES

#: The fixed vocabulary. Customers and programs rely on these words: a new one may be added, none renamed.
VOCABULARY = {
    "delivered", "status", "connect_timeout", "answer_timeout", "refused", "dns", "tls", "blocked",
    "broken_answer", "too_large", "bad_url", "unknown",
}  # fmt: skip

#: CURLE code -> outcome, written down a second time: these numbers are libcurl's, for ever.
EXPECTED_CURL_CODES = {
    1: "bad_url", 3: "bad_url", 5: "dns", 6: "dns", 7: "refused", 8: "broken_answer", 16: "broken_answer",
    18: "broken_answer", 28: "connect_timeout", 35: "tls", 52: "broken_answer", 55: "broken_answer",
    56: "broken_answer", 60: "tls", 61: "broken_answer", 90: "tls", 100: "too_large",
}  # fmt: skip


def test_the_vocabulary_is_fixed():
    """Every outcome has a meaning in plain words, and there are these and no others."""
    assert set(OUTCOMES) == VOCABULARY
    assert all(OUTCOMES.values())


def test_every_outcome_that_the_code_names_is_in_the_vocabulary():
    """No module makes up a word of its own."""
    root = Path(postbacks.__file__).parent
    named = {
        name
        for path in root.rglob("*.py")
        for name in re.findall(r"\bOutcome\(\s*\"(\w+)\"", path.read_text())
    }
    assert "broken_answer" in named
    assert named <= VOCABULARY
    assert {name for name, _ in CURL_CODES.values()} <= VOCABULARY
    assert '"unknown"' in (root / "queue" / "reap.lua").read_text().replace("'", '"')


def test_each_libcurl_code_has_its_outcome():
    """The whole table of codes that are told apart."""
    assert {code: name for code, (name, _) in CURL_CODES.items()} == EXPECTED_CURL_CODES


@pytest.mark.parametrize("code", sorted(set(EXPECTED_CURL_CODES) - {28}))
def test_a_failed_transfer_is_judged_by_its_libcurl_code(code):
    """The outcome, and a phrase that a customer understands."""
    outcome = judged(code, "libcurl's own words")
    assert outcome.name == EXPECTED_CURL_CODES[code]
    assert outcome.status is None
    assert CURL_CODES[code][1] in outcome.detail


#: Every CURLE code that pycurl has a name for, but success and those of the multi interface.
ALL_CODES = {
    getattr(pycurl, name) for name in dir(pycurl) if name.startswith("E_") and not name.startswith("E_MULTI")
}


@pytest.mark.parametrize("code", sorted(code for code in ALL_CODES if code > 0))
def test_every_code_that_libcurl_has_is_a_failure_with_a_word_and_a_phrase(code):
    """Codes without a phrase of their own are broken answers that keep the number."""
    outcome = judged(code)
    assert outcome.name in VOCABULARY - {"delivered", "unknown"}
    assert outcome.detail


def test_a_blocked_address_and_a_header_that_is_too_large_are_named():
    """Both reach us as other codes of libcurl's."""
    assert judged(pycurl.E_COULDNT_CONNECT, blocked="10.0.0.1: private").name == "blocked"
    assert judged(pycurl.E_WRITE_ERROR, header_bytes=MAX_HEADER_BYTES + 1).name == "too_large"
