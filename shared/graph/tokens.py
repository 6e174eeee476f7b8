"""Access tokens: one in memory for a whole process, and the application's own. The authority's answers: authority.py.

What must not be asked again yet is held back here, where it shows.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msal

from shared.graph.aadsts import MEANINGS
from shared.graph.authority import AuthorityHttp, guarded, msal_options, refusal
from shared.graph.client_credential import ask_managed_identity, managed_identity_refusal, msal_credential
from shared.graph.credentials import Application, ManagedIdentity
from shared.graph.errors import TokenFailure, TokenRefused, TokenUnavailable
from shared.graph.permissions import lacks_all_permissions
from shared.http_session import HttpSession

log = logging.getLogger(__name__)

GRAPH_SCOPES = ("https://graph.microsoft.com/.default",)
#: A token is renewed this long before its end, or at half its life when that is shorter.
MARGIN_SECONDS = 300.0
#: Renewing ahead that fails is tried again after so long; until its end the old token is good.
RENEWAL_PAUSE_SECONDS = 30.0
#: A refused credential is not tried again at once by every job; short, so that a mended one is soon in use.
HOLD_BACK_SECONDS = 5.0
#: How long a thread waits for the one that is fetching; longer than any fetch may take.
WAIT_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A token in memory; both times are monotonic."""

    token: str
    renew_at: float
    ends_at: float


class Tokens(ABC):
    """One token in memory for all threads: one of them fetches, the others wait for it, or use the old one while it is
    good."""

    def __init__(
        self, application: Application, session: HttpSession, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._session = session
        self._clock = clock
        self._http = AuthorityHttp(session)
        self._http_cache: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._failed = False
        self._held_back: tuple[float, TokenFailure] | None = None
        self._client: msal.ClientApplication | None = None

    def token(self, *, refused: str | None = None, claims: str | None = None) -> str:
        """See TokenSource. Raises TokenUnavailable, TokenRefused or SignInRequired."""
        held = self._good(refused)
        if held is not None:
            if self._clock() >= held.renew_at and self._lock.acquire(blocking=False):
                try:
                    return self._renew(held)
                finally:
                    self._lock.release()
            return held.token
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise TokenUnavailable("another thread has been waiting for a token for too long")
        try:
            held = self._good(refused)
            if held is not None:
                return held.token
            self._held = None
            return self._fetch(fresh=refused is not None, claims=claims).token
        finally:
            self._lock.release()

    def _good(self, refused: str | None) -> _Held | None:
        held = self._held
        if held is None or held.token == refused or self._clock() >= held.ends_at:
            return None
        return held

    def _renew(self, held: _Held) -> str:
        """Ahead of its end; while that fails, the old one is still good."""
        if self._held is not held:
            return self._held.token if self._held else held.token
        try:
            return self._fetch(fresh=True, claims=None).token
        except TokenFailure as failure:
            log.warning("token.not_renewed", extra={"identity": failure.identity, "error": str(failure)})
            self._held = _Held(held.token, self._clock() + RENEWAL_PAUSE_SECONDS, held.ends_at)
            return held.token

    def _fetch(self, *, fresh: bool, claims: str | None) -> _Held:
        if self._held_back is not None and self._clock() < self._held_back[0]:
            raise self._held_back[1].with_traceback(None)
        if self._failed:
            # A new client as well: MSAL's telemetry keeps the last errors, and fails itself on some of them.
            self._http_cache.clear()
            self._client = None
        self._failed, self._held_back = True, None
        try:
            result = guarded(self._http, lambda: self._acquire(fresh=fresh, claims=claims))
            token = self._read(result)
        except TokenFailure as failure:
            self._hold_back(failure)
            raise
        self._failed = False
        life, now = float(result.get("expires_in") or 0), self._clock()
        self._held = _Held(token, now + life - min(MARGIN_SECONDS, life / 2), now + life)
        return self._held

    def _hold_back(self, failure: TokenFailure) -> None:
        if isinstance(failure, TokenUnavailable):
            seconds = failure.retry_after.total_seconds() if failure.retry_after else 0.0
        else:
            seconds = HOLD_BACK_SECONDS
        if seconds > 0:
            self._held_back = (self._clock() + seconds, failure)

    def _read(self, result: dict[str, Any]) -> str:
        token = result.get("access_token")
        if not isinstance(token, str) or not token:
            raise self._refusal(result)
        return token

    def _client_options(self) -> dict[str, Any]:
        """What MSAL's client is built with, besides what proves it."""
        options = msal_options(self._application, self._http, self._http_cache)
        return {"client_id": self._application.client_id, "client_capabilities": ["CP1"], **options}

    @abstractmethod
    def _acquire(self, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        """Ask MSAL; returns its result, good or bad."""

    @abstractmethod
    def _refusal(self, result: dict[str, Any]) -> TokenFailure:
        """What a bad result means."""


class AppTokens(Tokens):
    """The application's own tokens. `scopes` names one API's, Graph's unless told otherwise."""

    def __init__(
        self,
        application: Application,
        session: HttpSession,
        clock: Callable[[], float] = time.monotonic,
        *,
        scopes: Sequence[str] = GRAPH_SCOPES,
    ) -> None:
        super().__init__(application, session, clock)
        self._scopes = list(scopes)

    def _acquire(self, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        result = self._ask(fresh=fresh, claims=claims)
        if fresh and lacks_all_permissions(result.get("access_token")):
            raise TokenRefused("The application has no permission in this tenant.", remedy=MEANINGS[65001].remedy)
        return result

    def _ask(self, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        credential = self._application.credential
        if isinstance(credential, ManagedIdentity):
            resource = self._scopes[0].removesuffix("/.default")
            return ask_managed_identity(credential, self._http, resource, claims)
        if self._client is None:
            proof = msal_credential(credential, self._session)
            self._client = msal.ConfidentialClientApplication(client_credential=proof, **self._client_options())
        if fresh:
            self._client.remove_tokens_for_client()
        result: dict[str, Any] = self._client.acquire_token_for_client(self._scopes, claims_challenge=claims)
        return result

    def _refusal(self, result: dict[str, Any]) -> TokenFailure:
        if isinstance(self._application.credential, ManagedIdentity):
            return managed_identity_refusal(self._http, result, "GRAPH_MANAGED_IDENTITY")
        return refusal(self._http, result)
