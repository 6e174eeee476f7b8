"""Signs a service account in, once, by a person: with a code on any device, or in a browser on this machine."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from typing import Any

import msal
from msal.oauth2cli.authcode import AuthCodeReceiver

from shared.graph.authority import AuthorityHttp, guarded, msal_options, refusal
from shared.graph.credentials import Application
from shared.graph.delegated_tokens import DELEGATED_SCOPES
from shared.graph.errors import TokenRefused, TokenUnavailable
from shared.graph.token_cache import CacheCipher, TokenCacheStore
from shared.http_session import HttpSession

#: How long a person has to sign in with the browser.
BROWSER_SECONDS = 300
SAVE_TRIES = 5

Way = Callable[[msal.PublicClientApplication, str, Callable[[str], None]], dict[str, Any]]


def with_code(client: msal.PublicClientApplication, _account: str, show: Callable[[str], None]) -> dict[str, Any]:
    """The person types a code into a browser anywhere. Waits until then, or until the code runs out."""
    flow: dict[str, Any] = client.initiate_device_flow(DELEGATED_SCOPES)
    if "user_code" not in flow:
        return flow
    show(flow.get("message") or f"Open {flow['verification_uri']} and enter the code {flow['user_code']}.")
    result: dict[str, Any] = client.acquire_token_by_device_flow(flow)
    return result


def with_browser(
    client: msal.PublicClientApplication,
    account: str,
    show: Callable[[str], None],
    open_page: Callable[[str], object] = webbrowser.open,
    seconds: float = BROWSER_SECONDS,
) -> dict[str, Any]:
    """The authorisation-code flow with PKCE; the browser comes back to a loopback address of this machine."""
    with AuthCodeReceiver(port=0) as receiver:
        flow: dict[str, Any] = client.initiate_auth_code_flow(
            DELEGATED_SCOPES,
            redirect_uri=f"http://localhost:{receiver.get_port()}",
            login_hint=account,
            response_mode="form_post",
        )
        address = flow["auth_uri"]
        show(f"Sign in as {account} in the browser. If none opens, open this address on this machine:\n{address}")
        open_page(address)
        answer = receiver.get_auth_response(state=flow["state"], timeout=seconds)
    if answer is None:
        raise TokenUnavailable("nobody signed in within the time; run the command again")
    result: dict[str, Any] = client.acquire_token_by_auth_code_flow(flow, answer)
    return result


def sign_in(
    application: Application,
    session: HttpSession,
    *,
    account: str,
    store: TokenCacheStore,
    cipher: CacheCipher,
    show: Callable[[str], None],
    way: Way = with_code,
) -> str:
    """Sign the account in and keep its tokens; returns the user name that signed in.

    `show` gets the text that tells the person what to do. Raises TokenRefused (also when someone else signed in) or
    TokenUnavailable.
    """
    http, cache = AuthorityHttp(session), msal.SerializableTokenCache()

    def run() -> dict[str, Any]:
        options = msal_options(application, http, {})
        client = msal.PublicClientApplication(application.client_id, token_cache=cache, **options)
        return way(client, account, show)

    result = guarded(http, run)
    if "access_token" not in result:
        raise refusal(http, result)
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
