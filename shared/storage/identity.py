"""The app's managed identity: a token for the storage library, or as the password of the database."""

from __future__ import annotations

import time
from typing import Any

import msal
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

RESOURCE = "https://storage.azure.com"
#: Azure Database for PostgreSQL takes a token for this one as the password.
DATABASE_RESOURCE = "https://ossrdbms-aad.database.windows.net"
TIMEOUT_SECONDS = 10.0


class _Session(requests.Session):
    """MSAL gives no timeout of its own."""

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", TIMEOUT_SECONDS)
        return super().request(method, url, *args, **kwargs)


class ManagedIdentity:
    """A TokenCredential; MSAL keeps the token and renews it. `client_id` names a user-assigned identity."""

    def __init__(self, client_id: str | None = None, resource: str = RESOURCE) -> None:
        self._resource = resource
        identity = (
            msal.UserAssignedManagedIdentity(client_id=client_id) if client_id else msal.SystemAssignedManagedIdentity()
        )
        self._client = msal.ManagedIdentityClient(identity, http_client=_Session())

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """Raises ClientAuthenticationError, which is an AzureError: the queue counts as away."""
        result: dict[str, Any] = self._client.acquire_token_for_client(resource=self._resource)
        if "access_token" not in result:
            reason = result.get("error_description") or result.get("error")
            raise ClientAuthenticationError(f"the managed identity gives no token: {reason}")
        return AccessToken(result["access_token"], int(time.time() + int(result.get("expires_in", 0))))
