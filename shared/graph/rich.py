"""The resource data that rich notifications bring: our certificates for it, and its decryption.

Graph makes a new symmetric key for each item and encrypts it with our certificate (RSA-OAEP, SHA-1); the data is
AES-256-CBC under that key, and signed with it (HMAC-SHA256). What the signature does not fit is never decrypted.
Source: Microsoft Learn, "Set up change notifications that include resource data".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import pkcs12

SYMMETRIC_KEY_BYTES = 32
BLOCK_BYTES = 16
#: What Graph takes.
KEY_BITS = (2048, 4096)

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), label=None)  # noqa: S303 - Graph's choice


class ContentError(Exception):
    """The resource data cannot be used; the notification itself may be good."""


class UnknownCertificateError(ContentError):
    """It was encrypted for a certificate that is not among ours."""

    def __init__(self, certificate_id: str) -> None:
        super().__init__(f"it was encrypted for the certificate {certificate_id}, which is not among ours")
        self.certificate_id = certificate_id


class BrokenSignatureError(ContentError):
    """The data is not what was signed; it was not decrypted."""


class UnreadableContentError(ContentError):
    """It has not the form of resource data, or does not decrypt."""


@dataclass(frozen=True, slots=True)
class PublicCertificate:
    """What a subscription says: `encryptionCertificateId`, and `encryptionCertificate` as base64 of the DER."""

    id: str
    base64: str


@dataclass(frozen=True, slots=True)
class EncryptionCertificate:
    """A certificate of ours with its private key; its id is made of its SHA-256 fingerprint."""

    public: PublicCertificate
    private_key: rsa.RSAPrivateKey


def read_certificate(text: str) -> EncryptionCertificate:
    """A certificate and its RSA key: PEM (line breaks may be written as \\n), or base64 of PEM or of PKCS #12.

    These are the forms in which Key Vault gives a certificate as a secret. Raises ValueError, without the value.
    """
    certificate, key = _read_pem(text) if "-----BEGIN" in text else _read_base64(text)
    if not isinstance(key, rsa.RSAPrivateKey) or not KEY_BITS[0] <= key.key_size <= KEY_BITS[1]:
        raise ValueError(f"its key must be an RSA key of {KEY_BITS[0]} to {KEY_BITS[1]} bits")
    if certificate.public_key() != key.public_key():
        raise ValueError("its private key belongs to another certificate")
    der = certificate.public_bytes(serialization.Encoding.DER)
    public = PublicCertificate(hashlib.sha256(der).hexdigest()[:40], base64.b64encode(der).decode())
    return EncryptionCertificate(public, key)


class EncryptionCertificates:
    """Our certificates: new subscriptions get the first, and all of them decrypt."""

    def __init__(self, *certificates: EncryptionCertificate) -> None:
        self._certificates = certificates
        self._keys = {certificate.public.id: certificate.private_key for certificate in certificates}

    def current(self) -> PublicCertificate | None:
        """What new and renewed subscriptions are to name; None: no resource data can be asked for."""
        return self._certificates[0].public if self._certificates else None

    def decrypt(self, content: Any) -> dict[str, Any]:
        """The resource in a notification's `encryptedContent`. Raises ContentError."""
        if not isinstance(content, dict):
            raise UnreadableContentError("encryptedContent is no object")
        certificate_id = content.get("encryptionCertificateId")
        key = self._keys.get(certificate_id) if isinstance(certificate_id, str) else None
        if key is None:
            raise UnknownCertificateError(str(certificate_id)[:128])
        data = _bytes(content, "data")
        symmetric_key = _symmetric_key(key, _bytes(content, "dataKey"))
        if not hmac.compare_digest(hmac.digest(symmetric_key, data, "sha256"), _bytes(content, "dataSignature")):
            raise BrokenSignatureError("the data is not what was signed")
        return _resource(symmetric_key, data)


def _read_pem(text: str) -> tuple[x509.Certificate, Any]:
    blob = text.replace("\\n", "\n").encode()
    try:
        return x509.load_pem_x509_certificate(blob), serialization.load_pem_private_key(blob, None)
    except (ValueError, TypeError):
        raise ValueError("it must hold a certificate and its private key without a password, as PEM") from None


def _read_base64(text: str) -> tuple[x509.Certificate, Any]:
    try:
        blob = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is neither PEM nor base64") from None
    if b"-----BEGIN" in blob:
        return _read_pem(blob.decode("ascii", "replace"))
    try:
        key, certificate, _ = pkcs12.load_key_and_certificates(blob, None)
    except (ValueError, TypeError):
        raise ValueError("it is base64 of neither PEM nor PKCS #12 without a password") from None
    if certificate is None or key is None:
        raise ValueError("its PKCS #12 lacks the certificate or the private key")
    return certificate, key


def _bytes(content: dict[str, Any], name: str) -> bytes:
    value = content.get(name)
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableContentError(f"{name} is not base64") from None


def _symmetric_key(key: rsa.RSAPrivateKey, data_key: bytes) -> bytes:
    try:
        symmetric_key = key.decrypt(data_key, _OAEP)
    except ValueError:
        raise UnreadableContentError("dataKey does not decrypt") from None
    if len(symmetric_key) != SYMMETRIC_KEY_BYTES:
        raise UnreadableContentError(f"dataKey holds {len(symmetric_key)} bytes, not {SYMMETRIC_KEY_BYTES}")
    return symmetric_key


def _resource(symmetric_key: bytes, data: bytes) -> dict[str, Any]:
    try:
        decryptor = Cipher(algorithms.AES(symmetric_key), modes.CBC(symmetric_key[:BLOCK_BYTES])).decryptor()
        unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
        padded = decryptor.update(data) + decryptor.finalize()
        resource = json.loads(unpadder.update(padded) + unpadder.finalize())
    except (ValueError, RecursionError):
        raise UnreadableContentError("the data does not decrypt to JSON") from None
    if not isinstance(resource, dict):
        raise UnreadableContentError("the data is no object")
    return resource
