"""A broker behind TLS: rediss:// serves the caller, the beat and the worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing

import pytest
import redis
from helpers import BASE_ENV, BrokerAt, ended, running
from identities import Identity
from kombu import Connection
from tls_front import tls_in_front_of

from postbacks.broker.client import client_for, kombu_options, kombu_url
from postbacks.broker.errors import broker_errors
from postbacks.devtools.receiver import Receiver
from postbacks.errors import BrokerUnreachable

pytestmark = pytest.mark.usefixtures("forked")

PRODUCER = """
import sys
from postbacks import send_postback
event = {"ORIGIN": "SUB", "CODE": "N301", "MOBILE": "15552312102", "CAMPAIGNID": "17041"}
print(send_postback.delay("acme", event, url=sys.argv[1]).id)
"""


@pytest.mark.parametrize("trusted", [True, False], ids=["our authority", "an unknown authority"])
def test_rediss_is_verified_and_carries_a_postback_all_the_way(broker, tmp_path, trusted):
    """With the authority named in the URL it is delivered; without, the caller is told and nothing is accepted."""
    authority = Identity("postbacks test authority")
    certificate, key = Identity("broker", issuer=authority).write(tmp_path, "broker")
    other = authority if trusted else Identity("another authority")
    ca_path, _ = other.write(tmp_path, "ca")
    plain_port = int(broker.url.rpartition(":")[2].partition("/")[0])
    with Receiver() as receiver, tls_in_front_of(plain_port, certificate, key) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={ca_path}"
        env = {**os.environ, **BASE_ENV, "POSTBACKS_BROKER_URL": url}
        call = [sys.executable, "-c", PRODUCER, receiver.url()]
        if not trusted:
            refused = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
            assert "BrokerUnreachable" in refused.stderr
            assert broker.client().llen("postbacks") == 0
            return
        with running(BrokerAt(url), tmp_path):
            made = subprocess.run(call, env=env, capture_output=True, text=True, check=True)
            assert ended(broker.client(), made.stdout.strip()).state == "delivered"


@pytest.mark.parametrize(
    ("host", "options", "serves"),
    [
        ("127.0.0.1", "", False),  # kombu alone would verify nothing then
        ("127.0.0.1", "?ssl_cert_reqs=CERT_REQUIRED", False),
        ("127.0.0.1", "?ssl_cert_reqs=optional", False),
        ("127.0.0.1", "?ssl_cert_reqs=none", True),
        ("127.0.0.1", "?ssl_cert_reqs=CERT_NONE", True),
        ("127.0.0.1", "?ssl_ca_certs=CA", True),
        ("127.0.0.1", "?ssl_ca_certs=CA&ssl_cert_reqs=CERT_OPTIONAL", True),
        ("127.0.0.1", "?ssl_ca_certs=OTHER", False),
        ("other.example", "?ssl_ca_certs=CA", False),
        ("other.example", "?ssl_ca_certs=CA&ssl_check_hostname=false", True),
        ("other.example", "?ssl_ca_certs=OTHER&ssl_check_hostname=false", False),
    ],
)
def test_redis_py_and_kombu_verify_the_same_of_the_brokers_certificate(
    broker, tmp_path, host, options, serves
):
    """Both connect or both do not, whatever the URL says of TLS; without a word they verify."""
    authority = Identity("postbacks test authority")
    ca_path, _ = authority.write(tmp_path, "ca")
    other_path, _ = Identity("another authority").write(tmp_path, "other")
    certificate, key = Identity("broker", issuer=authority, host=host).write(tmp_path, "broker")
    options = options.replace("certs=CA", f"certs={ca_path}", 1).replace("=OTHER", f"={other_path}")
    with tls_in_front_of(broker.port, certificate, key) as port:
        url = f"rediss://127.0.0.1:{port}/0{options}"
        with Connection(kombu_url(url), transport_options=kombu_options(url, 5.0)) as connection:
            calls = [client_for(url, 5.0).ping, connection.transport.establish_connection]
            assert [connects(call) for call in calls] == [serves, serves]


def connects(call: Callable[[], object]) -> bool:
    """True if the broker answers; False if its certificate is refused."""
    try:
        call()
    except redis.ConnectionError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise
        return False
    return True


OURS = Identity("our authority")
REFUSED = {
    "expired": (Identity("broker", issuer=OURS, days=-1), OURS, "a certificate that has expired; renew it"),
    "of another name": (Identity("broker", issuer=OURS, host="redis.example"), OURS, "a certificate for another name"),
    "of an unknown authority": (
        Identity("broker", issuer=OURS), Identity("another authority"), r"a certificate of an unknown authority; add \?ssl_ca_certs=FILE"),
    "self-signed": (Identity("broker"), OURS, r"a certificate of an unknown authority; add \?ssl_ca_certs=FILE"),
}  # fmt: skip


def ping(broker, folder, identity: Identity, authority: Identity) -> bool:
    """Ask a broker that has this identity, trusting this authority, for a PONG."""
    certificate, key = identity.write(folder, "broker")
    ca_path, _ = authority.write(folder, "ca")
    plain_port = int(broker.url.rpartition(":")[2].partition("/")[0])
    with tls_in_front_of(plain_port, certificate, key) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={ca_path}"
        with broker_errors(url), closing(client_for(url, 5)) as client:
            return bool(client.ping())


@pytest.mark.parametrize(("identity", "authority", "sentence"), REFUSED.values(), ids=list(REFUSED))
def test_a_certificate_that_is_refused_is_named_with_what_to_do(
    broker, tmp_path, identity, authority, sentence
):
    """A broker that has answered is not one to start."""
    with pytest.raises(BrokerUnreachable, match=f"has {sentence}"):
        ping(broker, tmp_path, identity, authority)


@pytest.mark.parametrize(
    ("without", "sentence"), [("identifiers", "key identifiers"), ("usage", "key usage")]
)
def test_a_certificate_that_python_3_13_refuses_by_default_is_named(broker, tmp_path, without, sentence):
    """Python before 3.13 takes the same certificate."""
    authority = Identity("an old recipe", without=without)
    identity = Identity("broker", issuer=authority, without=without)
    if sys.version_info < (3, 13):
        assert ping(broker, tmp_path, identity, authority)
        return
    with pytest.raises(BrokerUnreachable, match=f"{sentence} that Python 3.13 asks for"):
        ping(broker, tmp_path, identity, authority)
