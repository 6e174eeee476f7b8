"""Who the product is to Microsoft 365: the application, and what proves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

#: What a failure's `identity` says when it is the application's own; else it is a service account's user name.
APPLICATION = "application"


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A secret of the app registration."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate of the app registration with its private key, both PEM; the certificate itself comes first."""

    private_key: str = field(repr=False)
    certificate: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ManagedIdentity:
    """An identity that Azure gives to the app, in place of an app registration; the app's own without `client_id`."""

    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class FederatedToken:
    """Another issuer's token, which the app registration trusts: a managed identity's, or one in a file."""

    source: ManagedIdentity | Path


Credential = ClientSecret | ClientCertificate | ManagedIdentity | FederatedToken


@dataclass(frozen=True, slots=True)
class Application:
    """What the product runs as. With a managed identity, tenant and client serve the service accounts' sign-in only."""

    tenant_id: str
    client_id: str
    credential: Credential
    authority: str = "https://login.microsoftonline.com"

    @property
    def authority_url(self) -> str:
        return f"{self.authority.rstrip('/')}/{self.tenant_id}"
