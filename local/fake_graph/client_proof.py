"""Checks what a client proves itself with: a secret, an assertion signed with a certificate, or a federated token."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from local.fake_graph import tokens
from local.fake_graph.authority_error import AuthorityError
from local.fake_graph.call import utc_now
from local.fake_graph.registration import FederatedCredential, Registration

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def proves_itself(form: dict[str, str]) -> bool:
    return "client_secret" in form or "client_assertion" in form


def check_proof(form: dict[str, str], registration: Registration, client: str, endpoint: str) -> None:
    """Raise AuthorityError unless what the form has is good; a form without any proof is for the caller to judge."""
    if "client_secret" in form:
        _check_secret(form["client_secret"], registration)
    elif "client_assertion" in form:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise AuthorityError("invalid_request", 900144, "The client_assertion_type is missing or not known.")
        _check_assertion(form["client_assertion"], registration, client, endpoint)


def _check_secret(secret: str, registration: Registration) -> None:
    if secret not in registration.secrets:
        raise AuthorityError("invalid_client", 7000215, "Invalid client secret provided.", 401)
    if registration.secrets[secret]:
        raise AuthorityError("invalid_client", 7000222, "The provided client secret keys are expired.", 401)


def _check_assertion(text: str, registration: Registration, client: str, endpoint: str) -> None:
    try:
        header: dict[str, Any] = jwt.get_unverified_header(text)
        claims: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        raise AuthorityError("invalid_client", 50027, "Invalid JWT token. Token format not valid.", 401) from None
    if claims.get("iss") == client:
        _check_certificate(text, header, claims, registration, client, endpoint)
    else:
        _check_federated(text, claims, registration.federated)


def _check_certificate(
    text: str, header: dict[str, Any], claims: dict[str, Any], registration: Registration, client: str, endpoint: str
) -> None:
    certificate = next((one for one in registration.certificates if _is_named(header, one)), None)
    if certificate is None:
        raise _bad_signature("The key was not found.")
    if certificate.not_valid_after_utc < utc_now():
        raise _bad_signature("The key used is expired.")
    key = certificate.public_key()
    if header.get("alg") not in ("RS256", "PS256") or not isinstance(key, RSAPublicKey):
        raise _bad_signature("The algorithm is not supported.")
    options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    try:
        jwt.decode(text, key, algorithms=[header["alg"]], options=options)  # type: ignore[arg-type]
    except jwt.InvalidTokenError:
        raise _bad_signature("The signature is wrong.") from None
    if claims.get("sub") != client:
        raise AuthorityError("invalid_client", 700021, "The assertion's subject is not the client_id.", 401)
    if claims.get("aud") != endpoint:
        raise AuthorityError("invalid_client", 700023, "The assertion's audience is not the token endpoint.", 401)
    _check_times(claims)


def _is_named(header: dict[str, Any], certificate: x509.Certificate) -> bool:
    sha256, sha1 = (_url_base64(certificate.fingerprint(kind)) for kind in (SHA256(), SHA1()))
    return _named(header, "x5t#S256") == sha256 or _named(header, "x5t") == sha1


def _named(header: dict[str, Any], name: str) -> str:
    """A thumbprint; MSAL leaves its padding on."""
    return str(header.get(name, "")).rstrip("=")


def _check_federated(text: str, claims: dict[str, Any], known: list[FederatedCredential]) -> None:
    no_match = "No matching federated identity record found for presented assertion"
    if not known:
        raise AuthorityError("invalid_client", 70025, "The client has no federated identity credentials.", 401)
    of_issuer = [one for one in known if one.issuer == claims.get("iss")]
    if not of_issuer:
        raise AuthorityError("invalid_client", 700211, f"{no_match} issuer '{claims.get('iss')}'.", 401)
    of_subject = [one for one in of_issuer if one.subject == claims.get("sub")]
    if not of_subject:
        raise AuthorityError("invalid_client", 700213, f"{no_match} subject '{claims.get('sub')}'.", 401)
    trusted = next((one for one in of_subject if one.audience == claims.get("aud")), None)
    if trusted is None:
        raise AuthorityError("invalid_client", 700212, f"{no_match} audience '{claims.get('aud')}'.", 401)
    key: Any = load_pem_public_key(trusted.key.encode()) if trusted.key else tokens.KEY
    options = {"verify_exp": False, "verify_aud": False}
    try:
        jwt.decode(text, key, algorithms=["RS256" if trusted.key else "HS256"], options=options)  # type: ignore[arg-type]
    except jwt.InvalidTokenError:
        raise AuthorityError("invalid_client", 900384, "JWT token failed signature validation.", 401) from None
    _check_times(claims)


def _check_times(claims: dict[str, Any]) -> None:
    now = time.time()
    if not claims.get("nbf", 0) - 300 <= now <= claims.get("exp", 0):
        raise AuthorityError("invalid_client", 700024, "Client assertion is not within its valid time range.", 401)


def _bad_signature(reason: str) -> AuthorityError:
    text = f"Client assertion contains an invalid signature. [Reason - {reason}]"
    return AuthorityError("invalid_client", 700027, text, 401)


def _url_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
