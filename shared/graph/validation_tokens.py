"""The tokens by which Graph proves that it sent a delivery with resource data, and the keys that they are signed with.

Each is a JWT of Microsoft Entra for our app, issued to Graph's publisher of change notifications. The keys are those
of the common OpenID configuration; Entra changes them often and announces a new one before it signs with it.
Source: Microsoft Learn, "Set up change notifications that include resource data", validating the authenticity.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import jwt
import requests
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.types import Options

from shared.graph.session import GraphSession

#: The application "Microsoft Graph Change Tracking".
PUBLISHER = "0bf30f3b-4a52-48df-9a82-234910c4a086"
CONFIGURATION = "/common/.well-known/openid-configuration"
KEYS_LIVE = timedelta(hours=24)
#: Keys are not fetched again sooner, whatever tokens ask for; after a failure sooner than after a success.
PAUSE_SECONDS = 60.0
PAUSE_AFTER_FAILURE_SECONDS = 5.0
#: How long one thread waits for another's fetch.
WAIT_SECONDS = 30.0
CLOCK_MARGIN = timedelta(minutes=5)

_SIGNATURE_ONLY: Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}


class InvalidTokenError(Exception):
    """A validation token is not Graph's, or not for us. The message names the check, never the token."""


class KeysUnavailableError(Exception):
    """The signing keys cannot be had now, so nothing can be said of the token."""


@dataclass(frozen=True, slots=True)
class _KeySet:
    keys: Mapping[str, RSAPublicKey]
    fetched_at: datetime


class SigningKeys:
    """Entra's public keys by id, fetched when needed and kept. Safe to share between threads."""

    def __init__(
        self,
        session: GraphSession,
        authority: str = "https://login.microsoftonline.com",
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._authority = authority.rstrip("/")
        self._clock = clock
        self._monotonic = monotonic
        self._known: _KeySet | None = None
        self._lock = threading.Lock()
        self._flight: Future[_KeySet] | None = None
        self._next_at = 0.0

    def find(self, key_id: str, since: datetime) -> RSAPublicKey | None:
        """The key; None when keys fetched after `since` (when the token came in) have none of this id.

        Raises KeysUnavailableError while that cannot be told.
        """
        known = self._known
        if known is None or self._is_stale(known, key_id, since):
            known = self._refresh()
        if key_id not in known.keys and known.fetched_at <= since:
            raise KeysUnavailableError("the keys were fetched before the token came in")
        return known.keys.get(key_id)

    def _is_stale(self, known: _KeySet, key_id: str, since: datetime) -> bool:
        is_old = self._clock() - known.fetched_at > KEYS_LIVE
        return is_old or (key_id not in known.keys and known.fetched_at <= since)

    def _refresh(self) -> _KeySet:
        """One thread fetches, the others wait for it; no lock is held meanwhile."""
        with self._lock:
            flight, is_mine = self._flight, self._flight is None
            if flight is None:
                if self._monotonic() < self._next_at:
                    raise KeysUnavailableError("the keys were asked for a moment ago")
                flight = self._flight = Future()
        if not is_mine:
            try:
                return flight.result(WAIT_SECONDS)
            except (WaitedTooLong, CancelledError):
                raise KeysUnavailableError("another thread's fetch of the keys does not end") from None
        pause = PAUSE_AFTER_FAILURE_SECONDS
        try:
            known = self._known = self._fetch()
            flight.set_result(known)
            pause = PAUSE_SECONDS
            return known
        except KeysUnavailableError as error:
            flight.set_exception(error)
            raise
        finally:
            flight.cancel()  # no effect on one that has ended
            with self._lock:
                self._flight, self._next_at = None, self._monotonic() + pause

    def _fetch(self) -> _KeySet:
        fetched_at = self._clock()
        address = self._get(self._authority + CONFIGURATION).get("jwks_uri")
        base, parts = urlsplit(self._authority), urlsplit(address if isinstance(address, str) else "")
        if (parts.scheme, parts.netloc) != (base.scheme, base.netloc):
            raise KeysUnavailableError("the OpenID configuration names keys on another host than the authority's")
        listed = self._get(parts.geturl()).get("keys")
        keys = dict(pair for item in listed or [] if (pair := _key(item)) is not None)
        if not keys:
            raise KeysUnavailableError("the authority lists no RSA keys")
        return _KeySet(keys, fetched_at)

    def _get(self, url: str) -> dict[str, Any]:
        try:
            response = self._session.request("GET", url, headers={"Accept": "application/json"})
            document = response.json() if response.status_code == 200 else None
        except (requests.RequestException, ValueError) as error:
            raise KeysUnavailableError(f"the authority cannot be reached ({type(error).__name__})") from error
        if not isinstance(document, dict):
            raise KeysUnavailableError(f"the authority answered {response.status_code} without its document")
        return document


class ValidationTokens:
    """Judges the `validationTokens` of deliveries for one application of one tenant."""

    def __init__(
        self, keys: SigningKeys, *, tenant_id: str, client_id: str, authority: str = "https://login.microsoftonline.com"
    ) -> None:
        self._keys = keys
        self._client_id = client_id.lower()
        # By version of the token, which follows the app registration's own choice.
        self._issuers = {
            "1.0": f"https://sts.windows.net/{tenant_id}/".lower(),
            "2.0": f"{authority.rstrip('/')}/{tenant_id}/v2.0".lower(),
        }

    def check(self, tokens: Sequence[str], received_at: datetime) -> None:
        """Check every token as of the time that the delivery came in: it may have waited since.

        Raises InvalidTokenError for the first that fails or when there is none, KeysUnavailableError while the keys
        cannot be had.
        """
        if not tokens:
            raise InvalidTokenError("there is no validation token")
        for token in tokens:
            self._check(token, received_at)

    def _check(self, token: str, received_at: datetime) -> None:
        claims = self._claims(token, received_at)
        version = str(claims.get("ver", "1.0"))
        if str(claims.get("iss")).lower() != self._issuers.get(version):
            raise InvalidTokenError("its issuer is not our tenant; GRAPH_TENANT_ID must be the tenant's id")
        audience = claims.get("aud")
        if not isinstance(audience, str) or audience.lower() != self._client_id:
            raise InvalidTokenError("its audience is another application")
        if claims.get("azp" if version == "2.0" else "appid") != PUBLISHER:
            raise InvalidTokenError("it was not issued to Graph's publisher of change notifications")
        if _instant(claims, "exp") + CLOCK_MARGIN < received_at:
            raise InvalidTokenError("it had expired when it came in")
        if "nbf" in claims and _instant(claims, "nbf") - CLOCK_MARGIN > received_at:
            raise InvalidTokenError("it was not valid yet when it came in")

    def _claims(self, token: str, received_at: datetime) -> dict[str, Any]:
        """The claims, once the signature is known to be right; times and names are for the caller to judge."""
        try:
            if not token.isascii():
                raise InvalidTokenError("it is no token")
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self._keys.find(key_id, received_at) if isinstance(key_id, str) else None
            if key is None:
                raise InvalidTokenError("it is signed with a key that is none of Entra's")
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], options=_SIGNATURE_ONLY)
        except jwt.InvalidTokenError as error:
            raise InvalidTokenError(f"it does not verify ({type(error).__name__})") from None
        return claims


def _key(item: Any) -> tuple[str, RSAPublicKey] | None:
    """A key of the list by its id; what is none of RSA is left out."""
    if not isinstance(item, dict) or item.get("kty") != "RSA" or not isinstance(item.get("kid"), str):
        return None
    try:
        key = jwt.PyJWK(item, algorithm="RS256").key
    except jwt.PyJWTError:
        return None
    return (item["kid"], key) if isinstance(key, RSAPublicKey) else None


def _instant(claims: dict[str, Any], name: str) -> datetime:
    try:
        return datetime.fromtimestamp(claims[name], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise InvalidTokenError(f"its {name} is no instant") from None
