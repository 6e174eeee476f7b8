"""The settings of Teams messages: who sends them, and with what."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from shared.handlers.teams_routes import Route, missing_workflows, parse_rules
from shared.setting_types import Address, Group, Secret


def _sender_rules(value: str) -> str:
    parse_rules(value)
    return value


def _workflow_addresses(value: SecretStr) -> SecretStr:
    try:
        addresses = json.loads(value.get_secret_value())
    except ValueError:
        raise ValueError('it is not JSON like {"alerts": "https://…"}') from None
    if not isinstance(addresses, dict) or not all(isinstance(address, str) for address in addresses.values()):
        raise ValueError('it must be a JSON object of names and addresses, like {"alerts": "https://…"}')
    for name, address in addresses.items():
        if not name.strip() or not address.startswith("https://") or any(one <= " " for one in address):
            raise ValueError(f'"{name[:80]}" needs an address that begins with https://, without spaces')
    return value


class TeamsSettings(Group):
    """Who sends Teams messages; without any of it, the first service account does."""

    senders: Annotated[str, AfterValidator(_sender_rules)] = Field(
        "{}",
        alias="TEAMS_SENDERS",
        description="JSON of target patterns and senders, the first that fits decides: chat ids or team id/channel id"
        " with * for any text, each with account, account:<user name>, bot, workflow:<name> or activity",
    )
    workflow_addresses: Annotated[Secret, AfterValidator(_workflow_addresses)] = Field(
        SecretStr("{}"),
        alias="TEAMS_WORKFLOWS",
        description="JSON of names and signed addresses of workflows that post to Teams; a secret",
    )
    lost_workflow: Literal["stop", "resend"] = Field(
        "stop",
        alias="TEAMS_WORKFLOW_LOST",
        description="what follows when a workflow's answer was lost: stop leaves the job to a person, resend starts it"
        " again; default stop",
    )
    bot_client_id: str | None = Field(
        None,
        alias="TEAMS_BOT_CLIENT_ID",
        description="the bot's application (client) id, where it is not GRAPH_CLIENT_ID",
    )
    bot_client_secret: Secret | None = Field(
        None,
        alias="TEAMS_BOT_CLIENT_SECRET",
        description="the value of a client secret of TEAMS_BOT_CLIENT_ID",
    )
    bot_tenant_id: str | None = Field(
        None,
        alias="TEAMS_BOT_TENANT_ID",
        description="the tenant that the bot signs in to, where it is not GRAPH_TENANT_ID; botframework.com for a"
        " multi-tenant bot",
    )
    bot_service_url: Address = Field(
        "https://smba.trafficmanager.net/teams",
        alias="TEAMS_BOT_SERVICE_URL",
        description="address of the Bot Framework connector; default https://smba.trafficmanager.net/teams",
    )

    @property
    def rules(self) -> tuple[tuple[str, Route], ...]:
        return parse_rules(self.senders)

    @property
    def workflows(self) -> dict[str, str]:
        """Signed addresses by name."""
        addresses: dict[str, str] = json.loads(self.workflow_addresses.get_secret_value())
        return addresses

    def secrets(self) -> list[str]:
        return [*super().secrets(), *self.workflows.values()]

    @model_validator(mode="after")
    def _whole(self) -> TeamsSettings:
        if missing := missing_workflows(self.rules, list(self.workflows)):
            raise ValueError(f"TEAMS_SENDERS: it names workflows that TEAMS_WORKFLOWS lacks: {', '.join(missing)}")
        if bool(self.bot_client_id) != bool(self.bot_client_secret):
            raise ValueError("TEAMS_BOT_CLIENT_SECRET: it goes with TEAMS_BOT_CLIENT_ID; set both or none")
        return self
