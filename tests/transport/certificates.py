"""Certificates made when the tests run: an authority of our own, and what it issues."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from identities import sign


class Certificate:
    """A certificate and its key: PEM texts, the pin of its public key, a file for ``ssl``."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, folder: Path) -> None:
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.key = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.pin = "sha256//" + base64.b64encode(hashlib.sha256(public).digest()).decode()
        self.path = folder / f"{certificate.serial_number}.pem"
        self.path.write_text(self.pem + self.key)

    def server(self) -> ssl.SSLContext:
        """Make the context of a server that presents it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context


class Authority:
    """An issuer of certificates that no system trusts."""

    def __init__(self, folder: Path, name: str = "authority of the tests") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._now = datetime.now(UTC)
        builder = self._builder(self._name, self._name, self._key, -10, 10)
        own = sign(builder, self._key, self._key, ca=True)
        self.pem = own.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        from_days: int,
        to_days: int,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now + timedelta(days=from_days))
            .not_valid_after(self._now + timedelta(days=to_days))
        )

    def issue(
        self, *hosts: str, from_days: int = -5, to_days: int = 5, self_signed: bool = False
    ) -> Certificate:
        """A certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        names: list[x509.GeneralName] = [
            x509.DNSName(host) if host[-1].isalpha() else x509.IPAddress(ipaddress.ip_address(host))
            for host in hosts
        ]
        issuer = subject if self_signed else self._name
        builder = self._builder(subject, issuer, key, from_days, to_days).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        signed = sign(builder, key, key if self_signed else self._key, ca=False)
        return Certificate(signed, key, self._folder)
