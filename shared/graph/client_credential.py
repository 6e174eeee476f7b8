"""What proves the application to the authority, in the form that MSAL takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msal

from shared.graph.authority import AuthorityHttp, guarded, refusal, text_of
from shared.graph.credentials import ClientCertificate, ClientSecret, FederatedToken, ManagedIdentity
from shared.graph.errors import TokenFailure, TokenRefused, TokenUnavailable
from shared.http_session import HttpSession

#: What a managed identity's token must be for to stand for an app registration.
EXCHANGE = "api://AzureADTokenExchange"
_SWITCH_ON = "Switch the app's managed identity on, or check its client id in {setting}."


def msal_credential(
    credential: ClientSecret | ClientCertificate | FederatedToken, session: HttpSession
) -> str | dict[str, Any]:
    """`client_credential` of MSAL's confidential client."""
    match credential:
        case ClientSecret():
            return credential.value
        case ClientCertificate():
            return {"private_key": credential.private_key, "public_certificate": credential.certificate}
        case FederatedToken(source):
            if isinstance(source, Path):
                return {"client_assertion": partial(_read, source)}
            return {"client_assertion": partial(_exchange_token, source, session)}


def ask_managed_identity(
    identity: ManagedIdentity, http: AuthorityHttp, resource: str, claims: str | None = None
) -> dict[str, Any]:
    """MSAL's result for a token of the identity. The platform keeps tokens itself, so nothing is kept here."""
    who = (
        msal.UserAssignedManagedIdentity(client_id=identity.client_id)
        if identity.client_id
        else msal.SystemAssignedManagedIdentity()
    )

    def ask() -> dict[str, Any]:
        client = msal.ManagedIdentityClient(who, http_client=http, http_cache={})
        result: dict[str, Any] = client.acquire_token_for_client(resource=resource, claims_challenge=claims)
        return result

    return guarded(http, ask)


def managed_identity_refusal(http: AuthorityHttp, result: dict[str, Any], setting: str) -> TokenFailure:
    """What a result without a token means; `setting` names the variable that chose the identity."""
    if http.throttled:
        return refusal(http, result)
    return TokenRefused(
        f"The managed identity gives no token: {text_of(result)}.", remedy=_SWITCH_ON.format(setting=setting)
    )


def _read(path: Path) -> str:
    """The token as it is now: whoever issues it writes it anew before it ends."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenRefused(
            f"The file with the federated token cannot be read ({type(error).__name__}).",
            remedy="Check GRAPH_FEDERATED_TOKEN_FILE.",
        ) from error
    if not token:
        raise TokenUnavailable("the file with the federated token is empty")
    return token


def _exchange_token(identity: ManagedIdentity, session: HttpSession) -> str:
    http = AuthorityHttp(session)
    result = ask_managed_identity(identity, http, EXCHANGE)
    token = result.get("access_token")
    if not isinstance(token, str):
        raise managed_identity_refusal(http, result, "GRAPH_FEDERATED_IDENTITY")
    return token
