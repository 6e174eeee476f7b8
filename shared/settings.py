"""The settings: environment variables, in groups that fail one by one.

A group is read on first use, by bootstrap only, so that a missing Graph secret does not stop the webhook.
`problems()` reads them all. A field's description is its remedy, and its text in docs/reference/settings.md.
"""

from __future__ import annotations

from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

from shared.engine.errors import Problem
from shared.graph_settings import GraphSettings
from shared.notification_settings import NotificationSettings
from shared.setting_types import (
    Address,
    Certificate,
    EncryptionKey,
    EncryptionKeys,
    Group,
    Key,
    Secret,
    listed,
)
from shared.settings_errors import SettingsError
from shared.teams_settings import TeamsSettings


class DatabaseSettings(Group):
    """Where jobs live."""

    url: Secret = Field(
        alias="DATABASE_URL",
        description="PostgreSQL connection string: postgresql://user:password@host:5432/name?sslmode=require",
    )
    pooler: bool = Field(
        False,
        alias="DATABASE_POOLER",
        description="true when DATABASE_URL leads to a transaction pooler (PgBouncer); default false",
    )
    identity: str | None = Field(
        None,
        alias="DATABASE_IDENTITY",
        description="system, or the client id of a user-assigned identity: its token is the password",
    )

    @model_validator(mode="after")
    def _one_password(self) -> DatabaseSettings:
        if self.identity is not None and urlsplit(self.url.get_secret_value()).password:
            raise ValueError("DATABASE_IDENTITY: leave the password out of DATABASE_URL, or this one unset")
        return self


class StorageSettings(Group):
    """Where wake-ups and notifications travel: a connection string, or an address and a managed identity."""

    connection_string: Secret | None = Field(
        None,
        alias="QueueStorage",
        description="connection string of the storage account (or set QueueStorage__queueServiceUri)",
    )
    service_uri: Address | None = Field(
        None,
        alias="QueueStorage__queueServiceUri",
        description="address of the queue service, https://account.queue.core.windows.net, with a managed identity",
    )
    account_name: str | None = Field(
        None, alias="QueueStorage__accountName", description="not used: set QueueStorage__queueServiceUri"
    )
    client_id: str | None = Field(
        None,
        alias="QueueStorage__clientId",
        description="client id of a user-assigned identity; the app's own identity when not set",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> StorageSettings:
        if self.service_uri and self.account_name:
            raise ValueError(
                "QueueStorage__accountName: QueueStorage__queueServiceUri is set too, and which one wins differs"
                " between the host and its libraries; remove this one"
            )
        if self.service_uri and self.connection_string:
            raise ValueError("QueueStorage: QueueStorage__queueServiceUri is set too; remove one of them")
        if not self.service_uri and not self.connection_string:
            raise ValueError("QueueStorage: it is not set; set it or QueueStorage__queueServiceUri")
        return self


class BlobSettings(Group):
    """Where attachments are read from: a connection string, or an address and a managed identity. Optional."""

    connection_string: Secret | None = Field(
        None,
        alias="BlobStorage",
        description="connection string of the storage account of attachments (or set BlobStorage__blobServiceUri)",
    )
    service_uri: Address | None = Field(
        None,
        alias="BlobStorage__blobServiceUri",
        description="address of the blob service, https://account.blob.core.windows.net, with a managed identity",
    )
    client_id: str | None = Field(
        None,
        alias="BlobStorage__clientId",
        description="client id of a user-assigned identity; the app's own identity when not set",
    )
    container_names: str = Field(
        "attachments",
        alias="BLOB_CONTAINERS",
        description="containers that blobs may be sent from, separated by commas; default attachments",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> BlobSettings:
        if self.service_uri and self.connection_string:
            raise ValueError("BlobStorage: BlobStorage__blobServiceUri is set too; remove one of them")
        return self

    @property
    def containers(self) -> list[str]:
        return [name.strip() for name in self.container_names.split(",") if name.strip()]


class WebhookSettings(Group):
    """How Graph's notifications are told from forged ones."""

    secret: Key = Field(
        alias="WEBHOOK_SECRET",
        description="at least 32 random bytes; signs the clientState of our subscriptions",
    )
    previous_secret: Key | None = Field(
        None,
        alias="WEBHOOK_SECRET_PREVIOUS",
        description="the secret before a rotation, until every subscription is renewed with the new one",
    )


class AdminSettings(Group):
    """Who may use the admin API."""

    key: Key = Field(alias="ADMIN_KEY", description="at least 32 random bytes; the header x-admin-key carries it")
    previous_key: Key | None = Field(
        None, alias="ADMIN_KEY_PREVIOUS", description="the key before a rotation; valid beside the new one"
    )
    token_audience: str | None = Field(
        None,
        alias="ADMIN_TOKEN_AUDIENCE",
        description="switches Entra tokens on: the application id or id URI that they are for, several with commas",
    )
    app_service_auth: bool = Field(
        False,
        alias="ADMIN_APP_SERVICE_AUTH",
        description="true only where App Service authentication is on: it then says who asks; default false",
    )


class SubscriptionSettings(Group):
    """Where Graph reaches us."""

    base_url: Address = Field(
        alias="WEBHOOK_BASE_URL",
        description="public base address of the app with its route prefix, https://app.example/api",
    )


class EventSettings(Group):
    """How the fleet application hears of messages that come in."""

    endpoint: str | None = Field(
        None,
        alias="OUTGOING_EVENTS_ENDPOINT",
        description="name of the endpoint in OUTGOING_WEBHOOKS that is told of messages that come in",
    )


class ResourceDataSettings(Group):
    """What Graph encrypts the resource data in notifications for; without it, messages are fetched."""

    certificate: Certificate | None = Field(
        None,
        alias="WEBHOOK_CERTIFICATE",
        description="certificate and RSA key (2048 to 4096 bits) without a password: PEM, or base64 of PEM or PKCS #12",
    )
    previous_certificate: Certificate | None = Field(
        None,
        alias="WEBHOOK_CERTIFICATE_PREVIOUS",
        description="the certificate before a rotation, until no notification names it any more; it only decrypts",
    )

    @model_validator(mode="after")
    def _current_first(self) -> ResourceDataSettings:
        if self.previous_certificate and not self.certificate:
            raise ValueError("WEBHOOK_CERTIFICATE: it is not set, and WEBHOOK_CERTIFICATE_PREVIOUS is; set this one")
        return self


class EncryptionSettings(Group):
    """What seals the payloads of jobs and the service account's sign-in."""

    key: EncryptionKey = Field(
        alias="ENCRYPTION_KEY", description="32 random bytes in base64; `openssl rand -base64 32` makes one"
    )
    previous_keys: EncryptionKeys | None = Field(
        None,
        alias="ENCRYPTION_KEYS_PREVIOUS",
        description="other keys of the same form, separated by commas: they open what they sealed, and seal nothing",
    )

    @property
    def keys(self) -> list[str]:
        """All keys in base64, the current one first."""
        return [self.key.get_secret_value(), *(listed(self.previous_keys) if self.previous_keys else ())]

    def secrets(self) -> list[str]:
        return self.keys


class OperatorSettings(Group):
    """Who is told of dead letters, alerts and each day; each is optional."""

    chat_id: str | None = Field(
        None, alias="OPERATOR_CHAT_ID", description="Teams chat that dead letters and alerts are told in"
    )
    mail_from: str | None = Field(
        None, alias="OPERATOR_MAIL_FROM", description="mailbox that sends the operator's mails"
    )
    mail_to: str | None = Field(None, alias="OPERATOR_MAIL_TO", description="address that gets the operator's mails")
    endpoint: str | None = Field(
        None, alias="OPERATOR_WEBHOOK", description="name of an endpoint in OUTGOING_WEBHOOKS that alerts are posted to"
    )
    dashboard: Address | None = Field(
        None,
        alias="DASHBOARD_URL",
        description="address of the dashboard in messages; default WEBHOOK_BASE_URL with /queue/dashboard",
    )

    @model_validator(mode="after")
    def _whole_mail(self) -> OperatorSettings:
        if bool(self.mail_from) != bool(self.mail_to):
            raise ValueError("OPERATOR_MAIL_TO: it goes with OPERATOR_MAIL_FROM; set both or none")
        return self


class TelemetrySettings(Group):
    """Where spans go."""

    exporter: Literal["off", "otlp", "azure-monitor"] = Field(
        "off",
        alias="TELEMETRY",
        description="off, otlp or azure-monitor: what exports spans (docs/how-to/trace.md); default off",
    )


GROUPS: tuple[type[Group], ...] = (
    DatabaseSettings,
    StorageSettings,
    BlobSettings,
    WebhookSettings,
    AdminSettings,
    GraphSettings,
    TeamsSettings,
    SubscriptionSettings,
    ResourceDataSettings,
    EventSettings,
    EncryptionSettings,
    OperatorSettings,
    NotificationSettings,
    TelemetrySettings,
)
G = TypeVar("G", bound=Group)


def load(group: type[G]) -> G:
    """Read one group from the environment. Raises SettingsError naming everything that is wrong with it."""
    try:
        return group()
    except ValidationError as error:
        raise SettingsError(_problems(group, error)) from None


def problems() -> list[Problem]:
    """Everything that is missing or wrong in any group, each with its remedy and never with a value."""
    found: list[Problem] = []
    for group in GROUPS:
        try:
            load(group)
        except SettingsError as error:
            found.extend(error.problems)
    return found


def _problems(group: type[Group], error: ValidationError) -> list[Problem]:
    remedies = {field.alias: field.description for field in group.model_fields.values()}
    found = []
    for entry in error.errors(include_url=False, include_input=False, include_context=False):
        reason = "it is not set" if entry["type"] == "missing" else entry["msg"].removeprefix("Value error, ")
        if entry["loc"]:
            name = str(entry["loc"][0])
            found.append(Problem(name, f"{reason}; {remedies[name]}"))
        else:  # of several variables together: each line begins with the one to change
            found += [Problem(*line.split(": ", 1)) for line in reason.splitlines()]
    return found
