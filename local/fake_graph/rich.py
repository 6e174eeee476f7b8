"""Notifications with resource data: what a subscription to them must say, their encryption, and their tokens.

The publisher has a key pair of its own; its public keys are served under the authority's /common. Tokens and
contents are right unless a control call asks for wrong ones.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from local.fake_graph.call import Answer, Json, bad_request, utc_now

PUBLISHER = "0bf30f3b-4a52-48df-9a82-234910c4a086"
CONFIGURATION_PATH = "/common/.well-known/openid-configuration"
KEYS_PATH = "/common/discovery/keys"
PUBLISHER_PATHS = (CONFIGURATION_PATH, KEYS_PATH)
TOKEN_SECONDS = 8 * 3600
OUTLOOK_LONGEST = timedelta(minutes=1_440)
CERTIFICATE_ID_LENGTH = 128
KEY_BITS = range(2048, 4097)

TOKEN_FAULTS = ("none", "expired", "audience", "issuer", "publisher", "key", "algorithm", "missing")
CONTENT_FAULTS = ("none", "signature", "data", "key", "certificate")
VERSIONS = ("1.0", "2.0")
_OUTLOOK = re.compile(r"users/[^/]+/(messages|mailfolders|events|contacts)", re.IGNORECASE)
_SELECT = re.compile(r"(?:^|&)\$select=([^&]+)", re.IGNORECASE)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass(slots=True)
class Publisher:
    """Who signs the validation tokens, and what is to be wrong with tokens and contents."""

    tenant: str
    client: str
    token: str = "none"
    content: str = "none"
    version: str = "1.0"
    _keys: dict[str, rsa.RSAPrivateKey] = field(default_factory=lambda: {uuid.uuid4().hex: _new_key()})

    def reset(self) -> None:
        """Everything right again; the key pair stays."""
        self.token = self.content = "none"
        self.version = "1.0"

    def order(self, wanted: Json) -> Json:
        """A control call: {token, content, version}, each one of its list, and {rotate: true} for a new key."""
        for name, known in (("token", TOKEN_FAULTS), ("content", CONTENT_FAULTS), ("version", VERSIONS)):
            if wanted.get(name, known[0]) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}")
            setattr(self, name, wanted.get(name, getattr(self, name)))
        if wanted.get("rotate"):
            self._keys = {uuid.uuid4().hex: _new_key()}
        return {"token": self.token, "content": self.content, "version": self.version, "keys": list(self._keys)}

    def answer(self, path: str, base_url: str) -> Answer:
        """One of PUBLISHER_PATHS: the common OpenID configuration, or its keys."""
        if path == CONFIGURATION_PATH:
            issuer = "https://sts.windows.net/{tenantid}/"
            return Answer(200, {"issuer": issuer, "jwks_uri": f"{base_url}{KEYS_PATH}"})
        return Answer(200, {"keys": [_public(key_id, key) for key_id, key in self._keys.items()]})

    def tokens(self, items: list[Json], base_url: str) -> list[str]:
        """The tokens of a delivery: one when it brings resource data, none otherwise."""
        if self.token == "missing" or not any("encryptedContent" in item for item in items):
            return []
        now = int(time.time()) - (2 * TOKEN_SECONDS if self.token == "expired" else 0)
        tenant = str(uuid.uuid4()) if self.token == "issuer" else self.tenant
        is_v2 = self.version == "2.0"
        claims: Json = {
            "aud": str(uuid.uuid4()) if self.token == "audience" else self.client,
            "iss": f"{base_url}/{tenant}/v2.0" if is_v2 else f"https://sts.windows.net/{tenant}/",
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "azp" if is_v2 else "appid": str(uuid.uuid4()) if self.token == "publisher" else PUBLISHER,
            "sub": str(uuid.uuid4()),
            "tid": tenant,
            "ver": self.version,
        }
        key_id, key = next(iter(self._keys.items()))
        headers = {"kid": key_id, "x5t": key_id}
        if self.token == "algorithm":
            # The public key as the secret of a MAC: what a careless check takes for a signature.
            return [jwt.encode(claims, _public(key_id, key)["n"], algorithm="HS256", headers=headers)]
        return [jwt.encode(claims, _new_key() if self.token == "key" else key, algorithm="RS256", headers=headers)]

    def encrypt(self, subscription: Json, resource: Json) -> Json:
        """`encryptedContent` for a subscription with resource data."""
        content = encrypt(subscription["encryptionCertificate"], subscription["encryptionCertificateId"], resource)
        match self.content:
            case "signature":
                content["dataSignature"] = base64.b64encode(secrets.token_bytes(32)).decode()
            case "data":
                content["data"] = base64.b64encode(secrets.token_bytes(64)).decode()
            case "key":
                content["dataKey"] = base64.b64encode(secrets.token_bytes(256)).decode()
            case "certificate":
                content["encryptionCertificateId"] = f"forgotten-{uuid.uuid4().hex}"
        return content


def encrypt(certificate: str, certificate_id: str, resource: Json) -> Json:
    """Resource data as Graph encrypts it for a certificate in base64."""
    public = x509.load_der_x509_certificate(base64.b64decode(certificate))
    key = public.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("the certificate's key is not RSA")
    symmetric_key = secrets.token_bytes(32)
    padder = PKCS7(128).padder()
    padded = padder.update(json.dumps(resource, ensure_ascii=False).encode()) + padder.finalize()
    encryptor = Cipher(algorithms.AES(symmetric_key), modes.CBC(symmetric_key[:16])).encryptor()
    data = encryptor.update(padded) + encryptor.finalize()
    sha1 = hashes.SHA1()
    return {
        "data": base64.b64encode(data).decode(),
        "dataSignature": base64.b64encode(hmac.digest(symmetric_key, data, "sha256")).decode(),
        "dataKey": base64.b64encode(key.encrypt(symmetric_key, padding.OAEP(padding.MGF1(sha1), sha1, None))).decode(),
        "encryptionCertificateId": certificate_id,
        "encryptionCertificateThumbprint": hashlib.sha1(base64.b64decode(certificate)).hexdigest().upper(),
    }


def split_resource(resource: str) -> tuple[str, str | None]:
    """The path of a subscription's resource, and what it selects."""
    path, _, options = resource.partition("?")
    found = _SELECT.search(options)
    return path, found[1] if found else None


def check_subscription(value: Json, lifetime: timedelta, *, is_teams: bool) -> None:
    """Graph's conditions on a subscription with resource data; 400 names the one that is not kept."""
    path, selected = split_resource(value["resource"])
    if not value.get("encryptionCertificate") or not value.get("encryptionCertificateId"):
        raise _invalid("includeResourceData requires encryptionCertificate and encryptionCertificateId.")
    check_certificate(value)
    if is_teams and selected is not None:
        raise _invalid("$select is not supported on this resource.")
    if _OUTLOOK.match(path.strip("/")):
        if selected is None:
            raise _invalid("$select is required on this resource when includeResourceData is true.")
        if lifetime > OUTLOOK_LONGEST + timedelta(minutes=1):
            raise _invalid("Subscription expiration can only be 1440 minutes in the future.")


def check_certificate(value: Json) -> None:
    """The certificate of a new subscription or a PATCH."""
    if len(value.get("encryptionCertificateId") or "") > CERTIFICATE_ID_LENGTH:
        raise _invalid(f"encryptionCertificateId is longer than {CERTIFICATE_ID_LENGTH} characters.")
    given = value.get("encryptionCertificate")
    if not given:
        return
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(given, validate=True))
    except ValueError:
        raise _invalid("encryptionCertificate is no base64 encoded X.509 certificate.") from None
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in KEY_BITS:
        raise _invalid("The key of encryptionCertificate must be RSA of 2048 to 4096 bits.")
    if certificate.not_valid_after_utc <= utc_now():
        raise _invalid("encryptionCertificate has expired.")


def pick(resource: Json, names: str | None) -> Json:
    """The properties that the subscription selects."""
    if names is None:
        return resource
    wanted = {"id", *(name.strip() for name in names.split(","))}
    return {name: value for name, value in resource.items() if name in wanted or name.startswith("@")}


def _invalid(message: str) -> Exception:
    return bad_request(message, "InvalidRequest")


def _public(key_id: str, key: rsa.RSAPrivateKey) -> Any:
    described = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {"kty": "RSA", "use": "sig", "kid": key_id, "x5t": key_id, "n": described["n"], "e": described["e"]}
