"""Tokens of the service accounts: each account's sign-in is sealed in a store that all workers share."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msal

from shared.graph.aadsts import Needs, meaning
from shared.graph.authority import codes_of, error_of, is_transient, refusal, text_of
from shared.graph.credentials import Application
from shared.graph.errors import SignInRequired, TokenFailure
from shared.graph.token_cache import CacheCipher, StoredCache, TokenCacheStore
from shared.graph.tokens import Tokens
from shared.http_session import HttpSession
from shared.sealing import CannotOpenError

#: What a service account must have consented to: send, and read back what it may have sent.
DELEGATED_SCOPES = ["ChatMessage.Send", "ChannelMessage.Send", "Chat.Read", "ChannelMessage.Read.All"]
SIGN_IN_COMMAND = "./dev sign-in --account {account}"

_SIGN_IN = {"invalid_grant", "interaction_required", "login_required", "consent_required"}


class DelegatedTokens(Tokens):
    """Tokens of one service account."""

    def __init__(
        self,
        application: Application,
        session: HttpSession,
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
        self._command = sign_in_command.format(account=account)
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
        if error_of(result) == "invalid_grant":
            # Another worker may have redeemed the refresh token, or someone signed in, since we loaded.
            newer = self._load()
            if newer is not None and newer.version != stored.version:
                return self._redeem(newer, fresh=fresh, claims=claims)
        return result

    def _redeem(self, stored: StoredCache, *, fresh: bool, claims: str | None) -> dict[str, Any]:
        if self._client is None:
            # As public as the sign-in was: Entra ID refuses its refresh token beside a secret (AADSTS700025).
            self._client = msal.PublicClientApplication(token_cache=self._cache, **self._client_options())
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
        known = meaning(codes_of(result))
        is_lost = known.needs is Needs.SIGN_IN if known else error_of(result) in _SIGN_IN
        if is_lost and not is_transient(self._http, result):
            return self._sign_in_required(text_of(result), known.remedy if known else "")
        return refusal(self._http, result)

    def _sign_in_required(self, reason: str, first: str = "") -> SignInRequired:
        return SignInRequired(self._account, reason, self._command, first)
