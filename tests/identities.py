"""Certificates for tests, made on the spot: self-signed, or by an authority of our own."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_NAME = x509.NameOID.COMMON_NAME


def sign(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    without: str = "",
) -> x509.Certificate:
    """Sign a certificate.

    Args:
        builder: it, but for its signature and the extensions that every certificate has.
        key: its own.
        issuer_key: the authority's.
        ca: whether it is an authority.
        without: ``identifiers`` or ``usage``. It lacks them then, and Python 3.13 does not trust it.
    """
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_encipherment", "encipher_only", "decipher_only"),
        False,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if without != "identifiers":
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    if without != "usage":
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=ca, crl_sign=ca, key_agreement=False, **usage
            ),
            critical=True,
        )
    return builder.sign(issuer_key, hashes.SHA256())


class Identity:
    """A certificate with its key; without an issuer it has signed itself."""

    def __init__(
        self,
        name: str,
        *,
        days: float = 30,
        issuer: Identity | None = None,
        host: str = "127.0.0.1",
        is_authority: bool = False,
        without: str = "",
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(_NAME, name)])
        by = issuer or self
        now = datetime.now(UTC)
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(by.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        )
        self.certificate = sign(builder, self.key, by.key, ca=is_authority or issuer is None, without=without)

    @property
    def cert_pem(self) -> str:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Write both into a folder; returns the paths of certificate and key."""
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_text(self.cert_pem)
        key.write_text(self.key_pem)
        return str(cert), str(key)

    def server_context(self, folder: Path) -> ssl.SSLContext:
        """Make the TLS context of a server with this identity."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.write(folder, f"server-{id(self)}"))
        return context


@cache
def authority() -> Identity:
    """The authority of the suite."""
    return Identity("postbacks test authority")
