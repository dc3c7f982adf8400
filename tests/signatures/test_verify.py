"""``postbacks verify``: on what a receiver really got, and on what somebody made of it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from signing import call, rotate
from standardwebhooks import Webhook

from postbacks.accounts import secrets


def raw(received, *, end="\r\n", **changes):
    """The request as it went over the wire, some headers changed or (None) left out."""
    headers = {**received.headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    head = end.join([f"POST {received.path} HTTP/1.1", *lines, "", ""])
    return head.encode() + received.body


def checked(received, secret, *args, **changes):
    """``postbacks verify --json`` of a request."""
    return call("verify", "--secret", secret, "--json", *args, text=raw(received, **changes))


def test_verify_finds_a_request_ours_in_every_form_that_it_comes_in(acme, tmp_path):
    secret = rotate()
    received = acme()
    head = tmp_path / "head"
    head.write_text("\n".join(f"{name}: {value}" for name, value in received.headers.items()))
    line = json.dumps({"headers": received.headers, "body": received.body.decode()})
    for args, text in [
        ((), raw(received)),
        ((), raw(received, end="\n")),
        ((), raw(received) + b"\n"),  # an editor's; the head says how long the body is
        (("--headers", str(head)), received.body),
        ((), f"{line}\n{line}\n"),
        (("--secret", secrets.new_secret()), raw(received)),
    ]:
        shown = call("verify", "--secret", secret, *args, text=text)
        assert shown.exit_code == 0, shown.output
        assert f"{received.postback_id}  ours: signed with this secret" in shown.stdout


def test_verify_says_what_is_wrong(acme):
    secret = rotate()
    received = acme()
    at = int(received.headers["webhook-timestamp"])
    body, more = received.body, {"content_length": None}

    def with_body(other):
        return raw(received, **more).removesuffix(body) + other

    for text, reason, words in [
        (raw(received, webhook_signature=None), "missing_header", "it has no webhook-signature"),
        (
            raw(received, webhook_signature=None, webhook_id=None, webhook_timestamp=None),
            "missing_header", "it is not signed",
        ),
        (raw(received, webhook_timestamp="now"), "bad_timestamp", "is no time in seconds"),
        (raw(received, webhook_signature="v1a,xyz"), "bad_signature", "no v1,"),
        (raw(received, webhook_signature="v1,!!"), "bad_signature", "no v1,"),
        (raw(received, webhook_timestamp=str(at - 10)), "mismatch", "no signature fits"),
        (raw(received, webhook_id="other"), "mismatch", f"it was {received.postback_id}"),
        (with_body(body.replace(b"STOP", b"KEEP")), "mismatch", "no signature fits"),
        (with_body(body + b"\n"), "mismatch", "line ends at its end were added"),
        (with_body(b"\xff"), "mismatch", "no signature fits"),
        (with_body(b"\xef\xbb\xbf" + body), "mismatch", "a byte order mark"),
    ]:  # fmt: skip
        shown = call("verify", "--secret", secret, "--json", text=text)
        said = json.loads(shown.stdout)
        assert (shown.exit_code, said["ours"], said["reason"]) == (1, False, reason), (words, said)
        assert words in said["detail"]
        plain_text = call("verify", "--secret", secret, text=text)
        assert plain_text.exit_code == 1
        assert f"not proven: {said['detail']}" in plain_text.stdout
    shown = checked(received, secrets.new_secret())
    assert json.loads(shown.stdout)["reason"] == "mismatch"


@pytest.mark.parametrize(
    ("ahead_s", "tolerance", "reason"),
    [
        (0, "300", "ok"),
        (-3600, "300", "too_old"),
        (-3600, "7200", "ok"),
        (3600, "300", "too_new"),
        (-9, "0", "too_old"),
    ],
)
def test_verify_knows_old_and_future_ones(acme, ahead_s, tolerance, reason):
    secret = rotate()
    received = acme()
    stamp = int(time.time()) + ahead_s
    moment = datetime.fromtimestamp(stamp, UTC)
    signature = Webhook(secret).sign(received.postback_id, moment, received.body.decode())
    changes = {"webhook_timestamp": str(stamp), "webhook_signature": signature}
    shown = checked(received, secret, "--tolerance", tolerance, **changes)
    said = json.loads(shown.stdout)
    assert (said["reason"], shown.exit_code) == (reason, 0 if reason == "ok" else 1)
    assert said["age_s"] == pytest.approx(-ahead_s, abs=5)
    assert reason == "ok" or "it is signed with this secret" in said["detail"]


@pytest.mark.parametrize(
    ("args", "text", "words"),
    [
        (("--secret", "whsec_AAAA"), "", "holds no request"),
        (("--secret", "whsec_AAAA"), "no head", "no empty line"),
        (("--secret", "whsec_AAAA"), '{"headers": 1}', "is no JSON line"),
        (("--secret", "whsec_AAAA"), "A: b\r\nContent-Length: 9\r\n\r\nabc", "cut off: 3 bytes of the 9"),
        (("--secret", "whsec_AAAA"), "A: b\r\nTransfer-Encoding: chunked\r\n\r\n0", "in chunks"),
        (("--secret", "whsec_"), "A: b\r\n\r\n", "--secret is none"),
        (("--secret", "whsec_ü!"), "A: b\r\n\r\n", "--secret is none"),
        ((), "A: b\r\n\r\n", "--secret"),
    ],
)
def test_verify_with_nothing_to_verify_is_2(args, text, words):
    shown = call("verify", *args, text=text)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert words in shown.stderr
    assert "whsec_ü" not in shown.stderr
