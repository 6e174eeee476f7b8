"""Access tokens by MSAL: the application's own, and those of the service account that posts to Teams.

MSAL remembers failures (a 400 for a minute, a 429 for its Retry-After), which would answer our retries from
memory: the memory is ours (`http_cache`) and is cleared before a retry. What must not be asked again yet is
held back here, where it shows.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msal
import requests
from msal.exceptions import MsalServiceError

from shared.graph.errors import SignInRequired, TokenFailure, TokenRefused, TokenUnavailable
from shared.graph.retry_after import retry_after
from shared.graph.session import GraphSession
from shared.graph.token_cache import CacheCipher, StoredCache, TokenCacheStore
from shared.sealing import CannotOpenError

APPLICATION_SCOPES = ["https://graph.microsoft.com/.default"]
#: What the service account must have consented to: send, and read back what it may have sent.
DELEGATED_SCOPES = ["ChatMessage.Send", "ChannelMessage.Send", "Chat.Read", "ChannelMessage.Read.All"]
SIGN_IN_COMMAND = "./dev sign-in"

#: A token is replaced this long before its end, or at half its life when that is shorter.
MARGIN_SECONDS = 300.0
#: A refused credential is not tried again at once by every job; short, so that a mended one is soon in use.
HOLD_BACK_SECONDS = 5.0
#: How long a thread waits for the one that is fetching; longer than any fetch may take.
WAIT_SECONDS = 40.0
SAVE_TRIES = 5

_TRANSIENT = {"temporarily_unavailable", "server_error", "request_throttled"}
_TRANSIENT_CODES = {90033, 90024, 50196}
_SIGN_IN = {"invalid_grant", "interaction_required", "login_required", "consent_required"}
_REMEDIES = {
    7000215: "Put the secret's value (not its id) into GRAPH_CLIENT_SECRET.",
    7000222: "The secret has expired: make a new one and put it into GRAPH_CLIENT_SECRET.",
    7000216: "Set GRAPH_CLIENT_SECRET.",
    7000218: "Allow public client flows on the app registration, then sign in again.",
    700016: "Check GRAPH_CLIENT_ID and GRAPH_TENANT_ID: this tenant does not know the application.",
    90002: "Check GRAPH_TENANT_ID: there is no such tenant.",
    900023: "Check GRAPH_TENANT_ID: it is no tenant's id or domain.",
    65001: "An administrator must grant the application its permissions.",
    50105: "An administrator must assign the application to the account.",
}


@dataclass(frozen=True, slots=True)
class Application:
    """The app registration that the product runs as."""

    tenant_id: str
    client_id: str
    client_secret: str
    authority: str = "https://login.microsoftonline.com"

    def __repr__(self) -> str:
        return f"Application({self.client_id} in {self.tenant_id})"

    @property
    def authority_url(self) -> str:
        return f"{self.authority.rstrip('/')}/{self.tenant_id}"


@dataclass(frozen=True, slots=True)
class _Held:
    """A token in memory; `until` and `since` are monotonic."""

    token: str
    until: float


class _Http:
    """The session as MSAL uses it; remembers the last answer, since MSAL hides the Retry-After of a 429."""

    def __init__(self, session: GraphSession) -> None:
        self._session = session
        self.last: requests.Response | None = None

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        return self._remember(self._session.get(url, **kwargs))

    def post(self, url: str, **kwargs: Any) -> requests.Response:
        return self._remember(self._session.post(url, **kwargs))

    def close(self) -> None:
        """The session belongs to the process."""

    def _remember(self, response: requests.Response) -> requests.Response:
        self.last = response
        return response

    @property
    def throttled(self) -> bool:
        return self.last is not None and (self.last.status_code == 429 or self.last.status_code >= 500)

    @property
    def retry_after(self) -> timedelta | None:
        return retry_after(self.last.headers) if self.last is not None and self.throttled else None


class _Tokens(ABC):
    """One token in memory for all threads: one of them fetches, the others wait for it."""

    def __init__(
        self, application: Application, session: GraphSession, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._clock = clock
        self._http = _Http(session)
        self._http_cache: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._failed = False
        self._held_back: tuple[float, TokenFailure] | None = None
        self._client: msal.ConfidentialClientApplication | None = None

    def token(self, *, refused: str | None = None, claims: str | None = None) -> str:
        """See TokenSource. Raises TokenUnavailable, TokenRefused or SignInRequired."""
        held = self._good(refused)
        if held is not None:
            return held
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise TokenUnavailable("another thread has been waiting for a token for too long")
        try:
            return self._good(refused) or self._fetch(fresh=refused is not None, claims=claims)
        finally:
            self._lock.release()

    def _good(self, refused: str | None) -> str | None:
        held = self._held
        if held is None or held.token == refused or self._clock() >= held.until:
            return None
        return held.token

    def _fetch(self, *, fresh: bool, claims: str | None) -> str:
        if self._held_back is not None and self._clock() < self._held_back[0]:
            raise self._held_back[1].with_traceback(None)
        if self._failed:
            # A new client as well: MSAL's telemetry keeps the last errors, and fails itself on some of them.
            self._http_cache.clear()
            self._client = None
        self._failed, self._held, self._held_back = True, None, None
        try:
            result = _guarded(self._http, lambda: self._acquire(fresh=fresh, claims=claims))
            token = self._read(result)
        except TokenFailure as failure:
            self._hold_back(failure)
            raise
        self._failed = False
        life = float(result.get("expires_in") or 0)
        self._held = _Held(token, self._clock() + life - min(MARGIN_SECONDS, life / 2))
        return token

    def _hold_back(self, failure: TokenFailure) -> None:
        if isinstance(failure, TokenUnavailable):
            seconds = failure.retry_after.total_seconds() if failure.retry_after else 0.0
        else:
            seconds = HOLD_BACK_SECONDS
        if seconds > 0:
            self._held_back = (self._clock() + seconds, failure)

    def _confidential(self, cache: msal.TokenCache | None = None) -> msal.ConfidentialClientApplication:
        return msal.ConfidentialClientApplication(
            self._application.client_id,
            client_credential=self._application.client_secret,
            client_capabilities=["CP1"],  # we answer claims challenges
            token_cache=cache,
            **_options(self._application, self._http, self._http_cache),
        )

    def _read(self, result: dict[str, Any]) -> str:
        token = result.get("access_token")
        if not isinstance(token, str) or not token:
            raise self._refusal(result)
        return token

    @abstractmethod
    def _acquire(self, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        """Ask MSAL; returns its result, good or bad."""

    @abstractmethod
    def _refusal(self, result: dict[str, Any]) -> TokenFailure:
        """What a bad result means."""


class AppTokens(_Tokens):
    """The application's own tokens (client credentials). `scopes` names one API's, Graph's unless told otherwise."""

    def __init__(
        self,
        application: Application,
        session: GraphSession,
        clock: Callable[[], float] = time.monotonic,
        *,
        scopes: Sequence[str] = APPLICATION_SCOPES,
    ) -> None:
        super().__init__(application, session, clock)
        self._scopes = list(scopes)

    def _acquire(self, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        if self._client is None:
            self._client = self._confidential()
        if fresh:
            self._client.remove_tokens_for_client()
        result: dict[str, Any] = self._client.acquire_token_for_client(self._scopes, claims_challenge=claims)
        return result

    def _refusal(self, result: dict[str, Any]) -> TokenFailure:
        return _refused(self._http, result)


class DelegatedTokens(_Tokens):
    """Tokens of the service account. Its cache is sealed in a store that all workers share."""

    def __init__(
        self,
        application: Application,
        session: GraphSession,
        *,
        account: str,
        store: TokenCacheStore,
        cipher: CacheCipher,
        sign_in_command: str = SIGN_IN_COMMAND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(application, session, clock)
        self._account = account
        self._store = store
        self._cipher = cipher
        self._command = sign_in_command
        self._cache = msal.SerializableTokenCache()
        self._user_id: str | None = None

    def user_id(self) -> str | None:
        """The account's object id, by which messages name their sender; None while it is not signed in.

        Also where the stored sign-in does not open: reading must go on, and without it nothing can be posted.
        """
        if self._user_id is None:
            with self._lock, suppress(SignInRequired):
                if self._load() is not None:
                    entry = next(iter(self._accounts()), None)
                    self._user_id = entry.get("local_account_id") if entry else None
        return self._user_id

    def _acquire(self, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        stored = self._load()
        if stored is None:
            raise self._sign_in_required("nobody has signed in yet.")
        result = self._redeem(stored, fresh=fresh, claims=claims)
        if _error(result) == "invalid_grant":
            # Another worker may have redeemed the refresh token, or someone signed in, since we loaded.
            newer = self._load()
            if newer is not None and newer.version != stored.version:
                return self._redeem(newer, fresh=fresh, claims=claims)
        return result

    def _redeem(self, stored: StoredCache, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        if self._client is None:
            self._client = self._confidential(self._cache)
        account = next(iter(self._client.get_accounts(self._account)), None)
        if account is None:
            raise self._sign_in_required("the stored sign-in is of another account.")
        result: dict[str, Any] | None = self._client.acquire_token_silent_with_error(
            DELEGATED_SCOPES, account, force_refresh=fresh, claims_challenge=claims
        )
        if result is None:
            raise self._sign_in_required("the stored sign-in has no refresh token.")
        if "access_token" in result and self._cache.has_state_changed:
            # When another worker saved in between, its refresh token is as new as ours: leave it. Entra ID does
            # not revoke a refresh token that was redeemed, so both stay good.
            sealed = self._cipher.seal(self._account, self._cache.serialize().encode())
            self._store.save(self._account, sealed, stored.version)
        return result

    def _load(self) -> StoredCache | None:
        stored = self._store.load(self._account)
        if stored is not None:
            try:
                self._cache.deserialize(self._cipher.open(self._account, stored.sealed).decode())
            except CannotOpenError as error:
                raise self._sign_in_required(f"{error}.") from error
            self._cache.has_state_changed = False
        return stored

    def _accounts(self) -> list[dict[str, Any]]:
        wanted = self._account.lower()
        entries = self._cache.search(msal.TokenCache.CredentialType.ACCOUNT)
        return [entry for entry in entries if str(entry.get("username", "")).lower() == wanted]

    def _refusal(self, result: dict[str, Any]) -> TokenFailure:
        if _error(result) in _SIGN_IN and not _is_transient(self._http, result):
            return self._sign_in_required(_text(result))
        return _refused(self._http, result)

    def _sign_in_required(self, reason: str) -> SignInRequired:
        return SignInRequired(self._account, reason, self._command)


def sign_in(
    application: Application,
    session: GraphSession,
    *,
    account: str,
    store: TokenCacheStore,
    cipher: CacheCipher,
    show: Callable[[str], None],
) -> str:
    """Sign the account in with a device code and keep its tokens; returns the user name that signed in.

    `show` gets the text with the address and the code. Waits until the person has entered it or it runs out.
    Raises TokenRefused (also when someone else signed in) or TokenUnavailable.
    """
    http, cache = _Http(session), msal.SerializableTokenCache()

    def run() -> dict[str, Any]:
        client = msal.PublicClientApplication(
            application.client_id, token_cache=cache, **_options(application, http, {})
        )
        flow: dict[str, Any] = client.initiate_device_flow(DELEGATED_SCOPES)
        if "user_code" not in flow:
            raise _refused(http, flow)
        show(flow.get("message") or f"Open {flow['verification_uri']} and enter the code {flow['user_code']}.")
        result: dict[str, Any] = client.acquire_token_by_device_flow(flow)
        return result

    result = _guarded(http, run)
    if "access_token" not in result:
        raise _refused(http, result)
    name = str((result.get("id_token_claims") or {}).get("preferred_username", ""))
    if name.lower() != account.lower():
        raise TokenRefused(f"{name or 'Somebody else'} signed in.", remedy=f"Sign in as {account}.")
    _keep(store, account, cipher, cache.serialize().encode())
    return name


def _keep(store: TokenCacheStore, account: str, cipher: CacheCipher, plaintext: bytes) -> None:
    for _ in range(SAVE_TRIES):
        stored = store.load(account)
        if store.save(account, cipher.seal(account, plaintext), stored.version if stored else None):
            return
    raise TokenUnavailable("the token cache kept changing while it was saved; sign in again")


def _options(application: Application, http: _Http, http_cache: dict[str, Any]) -> dict[str, Any]:
    return {
        "authority": application.authority_url,
        "instance_discovery": False,
        "http_client": http,
        "http_cache": http_cache,
    }


def _guarded(http: _Http, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run an MSAL call; its exceptions become ours."""
    http.last = None
    try:
        return ask()
    except (requests.RequestException, MsalServiceError) as error:
        raise TokenUnavailable(
            f"the authority gives no token now ({type(error).__name__})", retry_after=http.retry_after
        ) from error
    except (ValueError, RuntimeError) as error:  # MSAL's words for a discovery document that is none
        if http.last is None or http.throttled:
            raise TokenUnavailable(
                f"the authority cannot be used ({type(error).__name__})", retry_after=http.retry_after
            ) from error
        raise TokenRefused(
            f"The authority does not know this tenant (it answered {http.last.status_code}).",
            remedy="Check GRAPH_TENANT_ID and GRAPH_AUTHORITY.",
        ) from error


def _is_transient(http: _Http, result: dict[str, Any]) -> bool:
    return http.throttled or _error(result) in _TRANSIENT or bool(_TRANSIENT_CODES & set(_codes(result)))


def _refused(http: _Http, result: dict[str, Any]) -> TokenFailure:
    if _is_transient(http, result):
        return TokenUnavailable(f"The authority is busy: {_text(result)}", retry_after=http.retry_after)
    codes = _codes(result)
    remedy = next((_REMEDIES[code] for code in codes if code in _REMEDIES), "Check the app registration.")
    return TokenRefused(f"The authority refuses: {_text(result)}", remedy=remedy, codes=codes)


def _error(result: dict[str, Any]) -> str:
    """The OAuth error; "" where a gateway answered in a form of its own."""
    error = result.get("error")
    return error if isinstance(error, str) else ""


def _codes(result: dict[str, Any]) -> tuple[int, ...]:
    codes = result.get("error_codes")
    return tuple(code for code in codes if isinstance(code, int)) if isinstance(codes, list) else ()


def _text(result: dict[str, Any]) -> str:
    """The description without its trailing trace ids, which have lines of their own."""
    text = str(result.get("error_description") or _error(result) or "no reason given").strip()
    return text.split("\n")[0].split(" Trace ID:")[0].strip()[:300]
