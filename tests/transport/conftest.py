"""The toxic receiver in a process of its own, so that what it costs is not taken for ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transport.certificates import Authority, Certificate


class Certificates(NamedTuple):
    """Certificates that the ports present, and that are needed to trust them."""

    authority: Authority
    good: Certificate
    client: Certificate
    foreign_client: Certificate


class ToxicProcess:
    """``devtools/receiver.py`` as a process."""

    def __init__(self, certificates: Certificates, tls: dict[str, dict[str, str]]) -> None:
        self.certificates = certificates
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("toxic_receiver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ports: dict[str, int] = self._ask(json.dumps(tls))

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def url(self, path: str, port: str = "plain") -> str:
        """Return the URL to POST to; a port that has no path of its own speaks TLS or nothing."""
        scheme = "http" if port in {"plain", *PLAIN} else "https"
        return f"{scheme}://127.0.0.1:{self.ports[port]}/{path}"

    def served(self, path: str) -> int:
        """Count the requests that came for a path."""
        return int(self._ask(path))

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


#: Ports that misbehave before a request and speak no TLS.
PLAIN = frozenset(
    ["answers-first", "answers-first-and-resets", "resets-at-once", "closes-at-once", "never-reads"]
)


@pytest.fixture(scope="module")
def toxic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToxicProcess]:
    """Toxic receiver for the tests of a module."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    good = authority.issue("127.0.0.1", "localhost")
    client = authority.issue("our client")
    foreign = Authority(folder, "another authority").issue("some client")

    def presents(certificate: Certificate, **more: str) -> dict[str, str]:
        return {"path": str(certificate.path), **more}

    tls = {
        "good": presents(good),
        "wrong-host": presents(authority.issue("other.example")),
        "expired": presents(authority.issue("127.0.0.1", from_days=-5, to_days=-1)),
        "not-yet-valid": presents(authority.issue("127.0.0.1", from_days=1, to_days=5)),
        "self-signed": presents(authority.issue("127.0.0.1", self_signed=True)),
        "tls-1.0": presents(good, version="TLSv1"),
        "tls-1.1": presents(good, version="TLSv1_1"),
        "tls-1.2": presents(good, version="TLSv1_2"),
        "mutual": presents(good, clients=authority.pem),
        "mutual-1.2": presents(good, clients=authority.pem, version="TLSv1_2"),
    }
    made = ToxicProcess(Certificates(authority, good, client, foreign), tls)
    yield made
    made.close()
