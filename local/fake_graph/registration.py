"""What the tenant knows of the app: its credentials, consents and redirect URIs, and the managed identities."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from local.fake_graph.authority_error import AuthorityError

SECRET = "local-secret"
#: What an administrator has granted to the app, and what users may be asked for.
APPLICATION_PERMISSIONS = [
    "Mail.ReadWrite", "Mail.Send", "Chat.Read.All", "ChannelMessage.Read.All", "User.Read.All",
    "Calendars.Read", "Contacts.Read", "Files.Read.All", "Files.ReadWrite.All",
    "TeamsActivity.Send",
]  # fmt: skip
DELEGATED_PERMISSIONS = [
    "Chat.ReadWrite", "Chat.Read", "ChatMessage.Send", "ChatMessage.Read", "ChannelMessage.Send",
    "ChannelMessage.Read.All", "User.Read",
]  # fmt: skip
SYSTEM_IDENTITY = "cccccccc-0000-4000-8000-000000000001"
USER_IDENTITY = "cccccccc-0000-4000-8000-000000000002"
EXCHANGE = "api://AzureADTokenExchange"


@dataclass(frozen=True, slots=True)
class FederatedCredential:
    """Whose tokens stand for the app; `key` is the issuer's public key (PEM), "" for the tenant's own tokens."""

    issuer: str
    subject: str
    audience: str = EXCHANGE
    key: str = ""


@dataclass(slots=True)
class Identity:
    """A managed identity; its principal is what a federated credential names as the subject."""

    client_id: str
    roles: list[str]

    @property
    def principal(self) -> str:
        return self.client_id.replace("cccccccc", "dddddddd")


@dataclass(slots=True)
class Registration:
    """All of it can change while the fake runs (control_identity.py)."""

    #: By value; True is expired.
    secrets: dict[str, bool] = field(default_factory=lambda: {SECRET: False})
    certificates: list[x509.Certificate] = field(default_factory=list)
    federated: list[FederatedCredential] = field(default_factory=list)
    redirect_uris: list[str] = field(default_factory=lambda: ["http://localhost"])
    public_client: bool = True
    granted: list[str] = field(default_factory=lambda: list(APPLICATION_PERMISSIONS))
    #: Users whose consent was taken back, by id.
    without_consent: set[str] = field(default_factory=set)
    #: What a subject (a user's id, or "application") is refused with.
    refused: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    #: By client id; "" is the system-assigned one.
    identities: dict[str, Identity] = field(
        default_factory=lambda: {
            "": Identity(SYSTEM_IDENTITY, list(APPLICATION_PERMISSIONS)),
            USER_IDENTITY: Identity(USER_IDENTITY, list(APPLICATION_PERMISSIONS)),
        }
    )

    def refuse(self, subject: str) -> None:
        """Raise what this subject is to be refused with."""
        if subject in self.refused:
            raise AuthorityError(*self.refused[subject])
