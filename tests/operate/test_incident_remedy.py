"""Remedy of an incident: the command of its end as a query."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postbacks.history import Query
from postbacks.operate.incidents.course import Course
from postbacks.operate.incidents.remedy import resend_query
from postbacks.operate.incidents.store import Incident

INCIDENT = Incident(
    kind="endpoint",
    subject="https://acme.example:443",
    title="",
    sentence="",
    advice="",
    first_ms=0,
    course=Course(0, 0, 0, 0, 0),
)
BETWEEN = "--between 2026-11-28T10:42:13Z 2026-11-28T10:53:15Z"
QUERY = Query(state="dead", since_ms=1_795_862_533_000, until_ms=1_795_863_195_000)


@pytest.mark.parametrize(
    ("command", "query"),
    [
        (f"postbacks resend --account acme --state dead {BETWEEN}", replace(QUERY, account="acme")),
        (f"postbacks resend --host acme.example --state dead {BETWEEN}", replace(QUERY, host="acme.example")),
        ("", None),
        (f"postbacks resend --account acme --state dead --code N202 {BETWEEN}", None),
        (f"postbacks cancel --account acme --state dead {BETWEEN}", None),
    ],
)
def test_a_command_is_read_and_one_of_a_newer_version_is_not(command, query):
    assert resend_query(replace(INCIDENT, resend=command)) == query
