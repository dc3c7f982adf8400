"""Senders in other languages: each sample sends to a real broker, in clear and by TLS, and its postback arrives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from events import MO, example
from helpers import Rig, check_places, environment, refusing_port, set_account
from identities import Identity
from tls_front import tls_in_front_of

from postbacks.catalogue import event_type, parse_event, xml
from postbacks.devtools.embedded_broker import EmbeddedBroker
from postbacks.devtools.receiver import Receiver

SENDERS = Path(__file__).parents[2] / "examples" / "senders"

#: An event whose text JSON, base64 and XML each write in their own way, and one with a list.
HARD = MO | {"TEXT": 'STOP ✋ "please" & <thank> you/\\ é'}
NESTED = example(event_type("MMS_MO", "N401"))


def command_of(language: str, tmp_path: Path) -> list[str]:
    """The command of a sample; skips where its language is missing."""
    program = {"php": "php", "node": "node", "go": "go"}[language]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine, so its sample was not tried")
    if language == "go":
        built = tmp_path / "send"
        subprocess.run(["go", "build", "-o", built, SENDERS / "send.go"], check=True, timeout=300)
        return [str(built)]
    return [program, str(SENDERS / {"php": "send.php", "node": "send.mjs"}[language])]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority, and a broker's certificate that it has signed: the three paths."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Identity("postbacks test authority", is_authority=True)
    certificate, key = Identity("broker", issuer=authority).write(folder, "broker")
    return authority.write(folder, "ca")[0], certificate, key


@pytest.mark.parametrize("language", ["php", "node", "go"])
def test_what_a_sample_sends_arrives(language, authority, tmp_path):
    """By password, with an id and without, from a file and from standard input; the same id again is one postback."""
    command = command_of(language, tmp_path)
    ca_path, certificate, key = authority
    if language == "php":
        command[1:1] = ["-d", f"openssl.cafile={ca_path}"]
    trust = {"NODE_EXTRA_CA_CERTS": str(ca_path), "SSL_CERT_FILE": str(ca_path)}

    def send(url: str, *args: str, event: object = HARD) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "POSTBACKS_BROKER_URL": url, **trust}
        return subprocess.run(
            [*command, *args],
            input=json.dumps(event),
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    file = tmp_path / "event.json"
    file.write_text(json.dumps(HARD))
    with (
        EmbeddedBroker(with_password=True) as broker,
        environment(POSTBACKS_BROKER_URL=broker.url),
        Receiver() as receiver,
        tls_in_front_of(broker.port, certificate, key) as tls_port,
        closing(Rig(broker)) as rig,
    ):  # fmt: skip
        set_account("acme", url=receiver.url())
        in_tls = broker.url.replace("redis://", "rediss://").replace(f":{broker.port}/", f":{tls_port}/")
        sent = [send(broker.url, "acme", str(file), "order-17"), send(in_tls, "acme", "-", event=NESTED)]
        sent.append(send(in_tls, "acme", str(file), "order-17"))
        assert [(done.returncode, done.stderr) for done in sent] == [(0, "")] * 3
        rig.tick()
        rig.deliver()
        assert check_places(rig.client) == {"done": 2}
        ids = [done.stdout.strip() for done in sent]
        posts = {post.postback_id: post for post in receiver.received}
        assert list(posts) == ids[:2]
        assert posts["order-17"].body == xml.render(parse_event(HARD))
        assert json.dumps(posts[ids[1]].tags) == json.dumps(NESTED)
        for url, why in (
            (f"redis://127.0.0.1:{refusing_port()}/0", "refused"),
            (broker.url.replace("redis://:", "redis://:not-"), "WRONGPASS"),
            ("http://127.0.0.1/", "no redis:// or rediss:// URL"),
            ("", "no redis:// or rediss:// URL"),
            (f"{broker.url}?db=0", "options behind a ?"),  # which may name another database than the path
        ):
            failed = send(url, "acme", "-", "order-18")
            assert failed.returncode == 1
            assert why.lower() in failed.stderr.lower()
            assert failed.stderr.startswith("not sent: ")
            assert failed.stderr.endswith(" order-18\n")
        assert rig.tick().taken_in == 0
