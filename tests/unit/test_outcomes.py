"""What may come of a POST: only 200 is success, and every end has its word."""

from __future__ import annotations

import re
from pathlib import Path

import pycurl
import pytest

import postbacks
from postbacks.transport import outcomes
from postbacks.transport.classify import CURL_CODES, classify
from postbacks.transport.outcomes import OUTCOMES, Outcome, classify_status
from postbacks.transport.profile import Profile
from postbacks.transport.transfer import MAX_HEADER_BYTES, Transfer

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


def transfer(**seen) -> Transfer:
    """A transfer of which this has been seen."""
    return Transfer("http://a.example/", b"<POSTBACK/>", [], Profile(10, 10), **seen)


def judged(code: int = 0, message: str = "", **seen) -> Outcome:
    """The verdict on a transfer that has ended."""
    return classify(transfer(**seen), code, message)


@pytest.mark.parametrize("status", range(100, 600))
def test_only_200_is_success(status):
    """201, 204, every redirect, every error: failures."""
    assert (classify_status(status) == "delivered") is (status == 200)
    outcome = judged(status=status, header_s=1.0, connected_s=1.0)
    assert outcome.delivered is (status == 200)
    assert outcome.name == ("delivered" if status == 200 else "status")
    assert outcome.status == status


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
    """Those without a phrase of their own are broken answers that keep the number."""
    outcome = judged(code)
    assert outcome.name in VOCABULARY - {"delivered", "unknown"}
    assert outcome.detail


def test_a_time_out_is_told_apart_by_whether_the_connection_was_made():
    """28 is libcurl's one code for both."""
    assert judged(pycurl.E_OPERATION_TIMEDOUT).name == "connect_timeout"
    assert judged(pycurl.E_OPERATION_TIMEDOUT, connected_s=1.0).name == "answer_timeout"


def test_a_blocked_address_and_a_header_that_is_too_large_are_named():
    """Both reach us as other codes of libcurl's."""
    assert judged(pycurl.E_COULDNT_CONNECT, blocked="10.0.0.1: private").name == "blocked"
    assert judged(pycurl.E_WRITE_ERROR, header_bytes=MAX_HEADER_BYTES + 1).name == "too_large"


def test_once_the_header_has_come_whole_its_status_decides_whatever_the_body_did():
    """A body that breaks off, is too long or too late changes nothing."""
    for code in (0, pycurl.E_PARTIAL_FILE, pycurl.E_OPERATION_TIMEDOUT, pycurl.E_WRITE_ERROR):
        assert judged(code, status=200, header_s=1.0, connected_s=1.0).delivered
        assert judged(code, status=503, header_s=1.0, connected_s=1.0).name == "status"


def test_a_status_alone_is_no_answer():
    """The status line came, the header did not end: no success, even with 200."""
    assert not judged(pycurl.E_RECV_ERROR, status=200, connected_s=1.0).delivered


def test_200_stands_in_one_place():
    """Whoever asks where "only 200" is finds of_status."""
    source = Path(outcomes.__file__).read_text()
    assert len(re.findall(r"== 200\b", source)) == 1
