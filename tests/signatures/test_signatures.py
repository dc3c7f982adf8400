"""Signatures: what a real receiver got is proven by three implementations; secrets are kept, changed and never shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import time

from helpers import environment, set_account
from signing import EVENT, call, rotate, signatures
from standardwebhooks import Webhook, WebhookVerificationError

from postbacks import send_postback
from postbacks.accounts import redis_accounts, secrets
from postbacks.catalogue import parse_event
from postbacks.catalogue.xml import render
from postbacks.devtools.receiver import Answer, Receiver

DOCUMENT = render(parse_event(EVENT))

#: Verification by the text of the specification (standardwebhooks.com), in another language.
NODE = """
const crypto = require('crypto');
const {headers, body, secret} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
const wanted = crypto.createHmac('sha256', key).update(signed, 'utf8').digest();
const fits = headers['webhook-signature'].split(' ').some(one => {
  const [version, text] = one.split(',');
  const given = Buffer.from(text || '', 'base64');
  return version === 'v1' && given.length === wanted.length && crypto.timingSafeEqual(given, wanted);
});
process.exit(fits ? 0 : 1);
"""


def by_library(received, secret):
    """The package that we sign with."""
    try:
        Webhook(secret).verify(received.body, received.headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def by_hand(received, secret):
    """The specification, with hmac alone."""
    stamp = received.headers["webhook-timestamp"]
    signed = f"{received.headers['webhook-id']}.{stamp}.".encode() + received.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    fits = any(hmac.compare_digest(wanted, one) for one in received.headers["webhook-signature"].split(" "))
    return fits and abs(time.time() - int(stamp)) < 300


def by_node(received, secret):
    """Node's crypto; what is not there cannot disagree."""
    node = shutil.which("node")
    if node is None:
        return by_hand(received, secret)
    request = {"headers": received.headers, "body": received.body.decode(), "secret": secret}
    done = subprocess.run(
        [node, "-e", NODE], input=json.dumps(request), text=True, capture_output=True, timeout=90, check=False
    )
    assert done.stderr == ""
    return done.returncode == 0


def proven(received, secret):
    """Tell whether a secret proves a request: all three ways agree."""
    found = {by_library(received, secret), by_hand(received, secret), by_node(received, secret)}
    assert len(found) == 1
    return found.pop()


def _line(received):
    return json.dumps({"headers": received.headers, "body": received.body.decode()})


# -- what a receiver gets --------------------------------------------------------------------------


def test_an_account_without_a_secret_sends_unsigned(acme):
    assert not [name for name in acme().headers if name.startswith("webhook-")]


def test_a_signed_postback_is_proven_by_independent_implementations(acme):
    secret = rotate()
    received = acme()
    assert received.body == DOCUMENT
    assert received.headers["webhook-id"] == received.postback_id
    assert signatures(received) == 1
    assert proven(received, secret)
    assert not proven(received, secrets.new_secret())


def test_a_postback_that_was_touched_is_proven_by_nobody(acme):
    secret = rotate()
    received = acme()
    received.headers["webhook-id"] += "x"
    assert not proven(received, secret)


def test_during_the_overlap_both_sign_and_afterwards_the_new_one_alone(rig, acme):
    first = rotate()
    second = rotate("--overlap", "1h")
    during = acme()
    assert signatures(during) == 2
    assert proven(during, first)
    assert proven(during, second)
    rig.advance(3601)
    after = acme()
    assert signatures(after) == 1
    # its time is an hour ahead, so the library would refuse it for that alone
    key = base64.b64decode(second.removeprefix("whsec_"))
    signed = f"{after.postback_id}.{after.headers['webhook-timestamp']}.".encode() + after.body
    made = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert after.headers["webhook-signature"] == f"v1,{made}"


def test_an_overlap_of_0_ends_all_the_old_ones_at_once(acme):
    old = [rotate(), rotate(), rotate()]
    new = rotate("--overlap", "0")
    received = acme()
    assert signatures(received) == 1
    assert proven(received, new)
    assert not any(proven(received, secret) for secret in old)


def test_the_next_rotation_drops_expired_secrets_from_the_store(acme):
    del acme
    rotate()
    account = redis_accounts().get("acme")
    (current,) = account.secrets
    redis_accounts().set(
        account.model_copy(update={"secrets": (current, current.model_copy(update={"expires_ms": 1}))})
    )
    rotate()
    kept = redis_accounts().get("acme").secrets
    assert [secret.expires_ms is None for secret in kept] == [True, False]
    assert kept[1].value == current.value


def test_more_secrets_than_a_header_can_carry_are_refused(acme):
    del acme
    for _ in range(5):
        rotate()
    shown = call("account", "secret", "rotate", "acme")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "has 5 secrets that still sign" in shown.stderr
    assert "a shorter --overlap" in shown.stderr
    rotate("--overlap", "0")


def test_a_resend_carries_the_same_body_and_a_fresh_time_and_is_proven(rig):
    with Receiver(lambda received: Answer(200 if received.attempt == 2 else 500)) as failing:
        set_account("acme", url=failing.url())
        secret = rotate()
        one = send_postback.delay("acme", EVENT).id
        rig.tick()
        rig.deliver()
        rig.advance(301)
        rig.tick()
        rig.deliver()
        first, second = failing.by_id()[one]
    assert rig.record(one).state == "delivered"
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    gone_s = int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"])
    assert 300 <= gone_s <= 320
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert proven(first, secret)
    # verify() allows five minutes; the clock was moved by one second more
    shown = call("verify", "--secret", secret, "--tolerance", "600", text=_line(second))
    assert shown.exit_code == 0


def test_a_postback_sent_again_by_hand_is_proven_with_the_secret_of_today(rig):
    with (
        environment(POSTBACKS_MAX_RESENDS="0"),
        Receiver(lambda received: Answer(200 if received.attempt == 2 else 500)) as failing,
    ):
        set_account("acme", url=failing.url())
        old = rotate()
        one = send_postback.delay("acme", EVENT).id
        rig.tick()
        rig.deliver()
        new = rotate("--overlap", "0")
        assert call("resend", one).exit_code == 0
        rig.deliver()
        first, second = failing.by_id()[one]
    assert first.body == second.body == DOCUMENT
    assert (proven(first, old), proven(first, new)) == (True, False)
    assert (proven(second, old), proven(second, new)) == (False, True)


def test_eager_mode_signs_too(acme, receiver):
    del acme
    secret = rotate()
    send_postback("acme", EVENT)
    send_postback("acme", EVENT, url=receiver.url("/call"))
    assert [proven(post, secret) for post in receiver.received] == [True, True]
