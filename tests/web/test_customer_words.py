"""Words of customers' pages, and the veil over what is secret of a URL."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from postbacks.accounts import routing
from postbacks.history.filters import STATES
from postbacks.ledger.record import Attempt
from postbacks.monitor.causes import CLAUSES, Cause
from postbacks.ping import diagnose
from postbacks.transport.outcomes import OUTCOMES
from postbacks.urls import bare
from postbacks.web import filterbar
from postbacks.web.customers import words
from postbacks.web.customers.veil import Veil

URL = "https://u:p%40ssw0rd@host.example:8443/path;x/y?key=S%2Fecret&sure&empty=#frag"


# -- the veil --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"sent to {URL}.", "sent to https://host.example:8443/path;x/y."),
        ("GET /path?key=S%2Fecret&sure HTTP/1.1", "GET /path?… HTTP/1.1"),
        ("key is S/ecret", "key is …"),
        ('{"key": "S\\/ecret", "pw": "p@ssw0rd"}', '{"key": "…", "pw": "…"}'),
        ("wrong password p@ssw0rd or P%40SSW0RD", "wrong password … or …"),
        ("Authorization: Basic dTpwQHNzdzByZA==", "Authorization: Basic …"),
        ("dTpwQHNzdzByZA==", "…"),
        ("Bearer abcdefgh12345678.x", "Bearer …"),
        ("cut off in S/ecr", "cut off in …"),
        ("of another time: /old?token=OLD&x", "of another time: /old?…"),
        ("answered 503; only 200 counts", "answered 503; only 200 counts"),
        ("", ""),
    ],
)  # fmt: skip
def test_nothing_secret_of_a_url_is_in_a_text(text, shown):
    assert Veil([URL]).text(text) == shown


def test_values_of_headers_are_veiled_and_a_veil_over_nothing_hides_nothing():
    assert Veil([], ["tenant-4711"]).text("X-Tenant: tenant-4711") == "X-Tenant: …"
    assert (
        Veil([]).text("why? 3 == 3; see https://docs.example/a") == "why? 3 == 3; see https://docs.example/a"
    )
    assert Veil(["https://[broken"]).text("x") == "x"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "https://host.example:8443/path;x/y"),
        ("https://host/path?a=…&b", "https://host/path"),
        ("http://u:p/w@host/x", "(unreadable URL)"),
        ("http://host", "http://host"),
    ],
)
def test_a_url_is_bare(url, shown):
    assert bare(url) == shown


# -- words -----------------------------------------------------------------------------------------


def test_each_state_and_outcome_has_its_words():
    assert set(STATES) <= set(words.STATES)
    assert set(OUTCOMES) == set(words._OUTCOMES)
    assert words.state_words("of-a-newer-version") == "under way"
    assert words.outcome_words("status", 404) == "your server answered 404; only 200 counts"


def test_each_reason_has_its_words():
    put_off = {routing.ACCOUNT_CHANGED, routing.ACCOUNT_UNUSABLE, routing.BROKER_AWAY, routing.WORKER_STOPPED}
    assert set(words._REASONS) == set(routing._WORDS) - put_off
    assert (
        words.why("dead", "its FROM '1555' is not in the catalogue's form", "SMS_MO", "", None)
        == words._OTHER_REASON
    )
    assert words.why("skipped", routing.ORIGIN_OFF, "SMS_MO", "", None) == "SMS_MO is switched off for you"
    assert words.why("cancelled", routing.REVOKED, "SMS_MO", "status", 500) == ""
    assert words.why("delivered", "", "SMS_MO", "delivered", 200) == ""


def test_each_cause_that_is_named_is_one_and_has_the_figures_that_it_needs():
    assert set(words._CAUSES) <= set(CLAUSES)
    figures = {
        "ahead": 3,
        "rate": "5/s",
        "open": 2,
        "limit": 4,
        "count": 7,
        "failed": 1,
        "attempt": 2,
        "of": 6,
    }
    for name, sentence in words._CAUSES.items():
        asked = {field for _, field, _, _ in Formatter().parse(sentence) if field}
        assert asked <= {*figures, *words._TIMES}, name
        told = words.cause_words(
            [Cause(name, "", figures | {"since": "T", "at": "T", "until": "T"})], lambda at: f"<{at}>"
        )
        assert told
        assert "{" not in told[0]


def test_what_keeps_one_at_our_side_is_told_once_and_without_our_inside():
    causes = [Cause(name, "", {}) for name in CLAUSES if name not in words._CAUSES]
    assert words.cause_words(causes, str) == words.cause_words([], str) == [words._OURS]


def test_an_endpoint_that_others_share_is_told_without_their_figures():
    cause = Cause("endpoint_limit", "", {"endpoint": "https://h:443", "open": 4711})
    assert "4711" not in words.cause_words([cause], str)[0]


def test_no_advice_names_our_options_and_settings():
    advice = [
        *diagnose._STATUS_ADVICE.values(),
        *diagnose._ADVICE.values(),
        *diagnose._BLOCKED_ADVICE.values(),
        *(each for _, each in (*diagnose._TLS_ADVICE, *diagnose._HEADER_ADVICE)),
        diagnose._SILENT_TLS,
        "It may want a client certificate: --client-cert FILE --client-key FILE.",
    ]
    told = [words.for_developer(each) for each in advice]
    assert all(told)
    assert [each for each in told if re.search(r"POSTBACKS_|--\w|worker|account", each)] == []
    assert told.count("Ask whoever gave you the link.") <= 1
    assert words.for_developer("see --new-option") == "Ask whoever gave you the link."


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_advice_by_the_outcome_alone_is_one(outcome):
    advice = words.advice_of(outcome, 503)
    assert not words._INSIDE.search(advice)
    assert bool(advice) is (outcome not in {"delivered", "unknown"})


def test_details_of_our_inside_are_left_out():
    veil = Veil([])
    assert (
        words.detail_words(Attempt(1, 0, "tls", detail="certificate has expired (60)"), veil)
        == "certificate has expired (60)"
    )
    for detail in (
        "10.0.0.1 is private (POSTBACKS_ALLOWED_NETWORKS)",
        "its worker died",
        "the lease of its loop",
    ):
        assert words.detail_words(Attempt(1, 0, "blocked", detail=detail), veil) == ""


def test_filters_of_customers_are_some_of_all():
    assert set(filterbar.CUSTOMERS) < set(filterbar.ALL)
    assert not {"account", "host", "group", "reason", "outcome"} & set(filterbar.CUSTOMERS)
