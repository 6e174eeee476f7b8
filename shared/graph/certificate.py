"""Reads the application's certificate: PEM, or PKCS #12 as bytes or base64 (what Key Vault gives for a certificate)."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

from shared.graph.credentials import ClientCertificate


class CertificateError(ValueError):
    """It cannot be used; the text says why and never shows any of it."""


def read_certificate(content: str | bytes, password: str | None = None) -> ClientCertificate:
    """The certificate and its private key. Raises CertificateError."""
    raw = content.encode() if isinstance(content, str) else content
    key, certificate = _from_pem(raw, password) if b"-----BEGIN" in raw else _from_pkcs12(raw, content, password)
    if not isinstance(key, RSAPrivateKey):
        raise CertificateError("its key is no RSA key, and Entra ID takes no other")
    if key.public_key() != certificate.public_key():
        raise CertificateError("the private key is of another certificate")
    return ClientCertificate(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        certificate.public_bytes(Encoding.PEM).decode(),
        certificate.not_valid_after_utc,
    )


def _from_pem(raw: bytes, password: str | None) -> tuple[object, x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(_on_lines(raw))
    except ValueError:
        raise CertificateError("it holds no certificate (-----BEGIN CERTIFICATE-----)") from None
    if b"PRIVATE KEY-----" not in raw:
        raise CertificateError("it holds no private key (-----BEGIN PRIVATE KEY-----)")
    try:
        key = load_pem_private_key(_on_lines(raw), password.encode() if password else None)
    except TypeError:
        wrong = (
            "the private key is not encrypted, but a password is set" if password else "the private key is encrypted"
        )
        raise CertificateError(wrong) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("the private key cannot be read: it is damaged, or the password is wrong") from None
    own = next((one for one in certificates if one.public_key() == key.public_key()), certificates[0])
    return key, own


def _from_pkcs12(raw: bytes, content: str | bytes, password: str | None) -> tuple[object, x509.Certificate]:
    if isinstance(content, str):
        try:
            raw = base64.b64decode("".join(content.split()), validate=True)
        except (binascii.Error, ValueError):
            raise CertificateError("it is neither PEM nor PKCS #12 in base64") from None
    try:
        key, certificate, _ = load_key_and_certificates(raw, password.encode() if password else None)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("it is no PKCS #12 file (PFX), or the password is wrong") from None
    if key is None or certificate is None:
        raise CertificateError("it must hold the certificate with its private key")
    return key, certificate


def _on_lines(raw: bytes) -> bytes:
    r"""Settings that hold one line only carry a PEM with \n for its line ends."""
    return raw.replace(b"\\n", b"\n")
