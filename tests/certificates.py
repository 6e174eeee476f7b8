"""Self-signed certificates with their keys, in every form that the settings take."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Certificate:
    """A certificate and the key that it is made for."""

    key: Key
    issued: x509.Certificate

    @property
    def not_after(self) -> datetime:
        return self.issued.not_valid_after_utc

    @property
    def certificate(self) -> str:
        return self.issued.public_bytes(Encoding.PEM).decode()

    def private_key(self, password: str = "") -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _under(password)).decode()

    def pem(self, password: str = "") -> str:
        return self.private_key(password) + self.certificate

    def pfx(self, password: str = "") -> bytes:
        return serialize_key_and_certificates(b"app", self.key, self.issued, None, _under(password))

    def thumbprint(self) -> str:
        return base64.urlsafe_b64encode(self.issued.fingerprint(SHA256())).decode().rstrip("=")


def new_certificate(days: float = 90, key: Key | None = None) -> Certificate:
    """A new one that ends in so many days."""
    key = key or rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Fleet Queue")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
    )
    return Certificate(key, builder.sign(key, SHA256()))


@cache
def usual_certificate() -> Certificate:
    """One for all tests that need none of their own."""
    return new_certificate()


def _under(password: str) -> KeySerializationEncryption:
    return BestAvailableEncryption(password.encode()) if password else NoEncryption()
