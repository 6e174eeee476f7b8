"""The settings of notifications: channels, the notification hub, and endpoints of signed webhooks."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, model_validator

from shared.setting_types import Group, Secret, web_address


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
