"""The settings: environment variables, in groups that fail one by one.

A group is read on first use, by bootstrap only, so that a missing Graph secret does not stop the webhook.
`problems()` reads them all. A field's description is its remedy, and its text in docs/reference/settings.md.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from shared.engine.errors import Problem
from shared.graph_settings import GraphSettings
from shared.setting_types import (
    Address,
    Certificate,
    EncryptionKey,
    EncryptionKeys,
    Group,
    Key,
    Secret,
    listed,
    web_address,
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
    """Who is told of dead letters; each is optional."""

    chat_id: str | None = Field(None, alias="OPERATOR_CHAT_ID", description="Teams chat that dead letters are told in")
    mail_from: str | None = Field(
        None, alias="OPERATOR_MAIL_FROM", description="mailbox that sends the operator's mails"
    )
    mail_to: str | None = Field(None, alias="OPERATOR_MAIL_TO", description="address that gets the operator's mails")

    @model_validator(mode="after")
    def _whole_mail(self) -> OperatorSettings:
        if bool(self.mail_from) != bool(self.mail_to):
            raise ValueError("OPERATOR_MAIL_TO: it goes with OPERATOR_MAIL_FROM; set both or none")
        return self


def _hub_connection(value: SecretStr) -> SecretStr:
    connection_parts(value)
    return value


def connection_parts(value: SecretStr) -> dict[str, str]:
    """A connection string of Azure (`Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…`), taken apart."""
    fields = (part.partition("=") for part in value.get_secret_value().split(";") if part.strip())
    parts = {name.strip(): text for name, _, text in fields}
    missing = [name for name in ("Endpoint", "SharedAccessKeyName", "SharedAccessKey") if not parts.get(name)]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}: copy the whole connection string from the portal")
    return parts


def _outgoing_webhooks(value: SecretStr) -> SecretStr:
    outgoing_endpoints(value)
    return value


def outgoing_endpoints(value: SecretStr) -> dict[str, tuple[str, tuple[bytes, ...]]]:
    """Of each endpoint its address and its keys. Raises ValueError that names the endpoint and no value."""
    try:
        given = json.loads(value.get_secret_value())
    except ValueError:
        raise ValueError("it is not JSON") from None
    if not isinstance(given, dict):
        raise ValueError("it is no JSON object of endpoints by name")
    return {name: _endpoint(name, entry) for name, entry in given.items()}


def _endpoint(name: str, entry: Any) -> tuple[str, tuple[bytes, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"url", "secret"}:
        raise ValueError(f"endpoint {name}: it must have a url and a secret, and nothing else")
    if not isinstance(entry["url"], str) or not isinstance(entry["secret"], str):
        raise ValueError(f"endpoint {name}: url and secret must be texts")
    try:
        url = web_address(entry["url"])
    except ValueError as error:
        raise ValueError(f"endpoint {name}: url: {error}") from None
    keys = tuple(_webhook_key(name, text) for text in entry["secret"].split())
    if not keys:
        raise ValueError(f"endpoint {name}: secret is empty")
    return url, keys


def _webhook_key(name: str, text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError(f"endpoint {name}: secret must be whsec_ and 24 to 64 bytes in base64")
    return key


def _networks(value: str | None) -> str | None:
    for text in (value or "").split(","):
        if text.strip():
            try:
                ipaddress.ip_network(text.strip())
            except ValueError:
                raise ValueError("it must be networks such as 10.1.0.0/16, separated by commas") from None
    return value


def _channels(value: str) -> str:
    given = [name.strip() for name in value.split(",")]
    unknown = [name for name in given if name not in ("teams-activity", "push", "webhook")]
    if unknown or len(set(given)) != len(given):
        raise ValueError("it must list teams-activity, push and webhook, each at most once, separated by commas")
    return ",".join(given)


class NotificationSettings(Group):
    """How users are notified; a channel that is not set up is passed over for the next."""

    channels: Annotated[str, AfterValidator(_channels)] = Field(
        "teams-activity",
        alias="NOTIFICATION_CHANNELS",
        description="channels in order for users who have not chosen, such as teams-activity,push",
    )
    hub_connection: Annotated[Secret, AfterValidator(_hub_connection)] | None = Field(
        None,
        alias="NOTIFICATION_HUB_CONNECTION",
        description="connection string of the notification hub's namespace, with the right to send",
    )
    hub_name: str | None = Field(None, alias="NOTIFICATION_HUB_NAME", description="the notification hub's name")
    hub_tag: str = Field(
        "$UserId:{{user}}",
        alias="NOTIFICATION_HUB_TAG",
        description="tag of a user's devices, {user} standing for the user's id; default $UserId:{{user}}",
    )
    webhooks: Annotated[Secret, AfterValidator(_outgoing_webhooks)] | None = Field(
        None,
        alias="OUTGOING_WEBHOOKS",
        description='endpoints, {"name": {"url": "https://…", "secret": "whsec_…"}}; a second secret after a space',
    )
    networks: Annotated[str, AfterValidator(_networks)] | None = Field(
        None,
        alias="OUTGOING_NETWORKS",
        description="networks of yours that endpoints may be in, such as 10.1.0.0/16; else the public internet only",
    )

    @model_validator(mode="after")
    def _whole_hub(self) -> NotificationSettings:
        if bool(self.hub_connection) != bool(self.hub_name):
            raise ValueError("NOTIFICATION_HUB_NAME: it goes with NOTIFICATION_HUB_CONNECTION; set both or none")
        if "{user}" not in self.hub_tag:
            raise ValueError("NOTIFICATION_HUB_TAG: it has no {user}, so every push would go to every device")
        return self

    def secrets(self) -> list[str]:
        """Also what is inside: keys and addresses appear alone."""
        inside = [connection_parts(self.hub_connection)["SharedAccessKey"]] if self.hub_connection else []
        if self.webhooks:
            entries = json.loads(self.webhooks.get_secret_value()).values()
            inside += [text for entry in entries for text in (*entry["secret"].split(), entry["url"])]
        return [*super().secrets(), *inside]


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
