"""Which of Graph's permissions the application has, and what lacks without the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from local.q.findings import Finding, Level, problem
from local.q.target import Target

GRANT = (
    "In Entra, under App registrations, API permissions: add the application permission {name} of Microsoft Graph,"
    " then grant admin consent (to a managed identity: assign the app role)."
)


@dataclass(frozen=True, slots=True)
class Need:
    """A permission, or one of those that include it, and for what; `always`: not only where that part is used."""

    name: str
    part: str
    always: bool
    included_in: tuple[str, ...] = ()

    def is_met(self, granted: frozenset[str]) -> bool:
        return bool(granted & {self.name, *self.included_in})


#: docs/reference/graph.md says the same part by part; a test compares.
NEEDS = (
    Need("Mail.Send", "sending mail", True),
    Need("Mail.ReadWrite", "drafts, mails with files, and finding out whether a mail was sent", True),
    Need("Chat.Read.All", "taking chats in, and finding out whether a message was sent", True, ("Chat.ReadWrite.All",)),
    Need("ChannelMessage.Read.All", "the same for channels", True),
    Need("User.Read.All", "finding people", True, ("User.ReadWrite.All", "Directory.Read.All")),
    Need("Mail.Read", "watching and syncing mailboxes", False, ("Mail.ReadWrite",)),
    Need("Calendars.Read", "watching and syncing calendars", False, ("Calendars.ReadWrite",)),
    Need("Contacts.Read", "watching and syncing contacts", False, ("Contacts.ReadWrite",)),
    Need("Files.Read.All", "syncing drives", False, ("Files.ReadWrite.All", "Sites.Read.All", "Sites.ReadWrite.All")),
    Need("Files.ReadWrite.All", "watching drives", False),
    Need("TeamsActivity.Send", "notifications in the activity feed", False),
)  # fmt: skip


def look(target: Target) -> Iterator[Finding]:
    """Ask for a token with the settings that are here, and read its roles."""
    settings = target.settings or os.environ
    if not settings.get("GRAPH_CLIENT_ID") and not settings.get("GRAPH_MANAGED_IDENTITY"):
        text = "the app's settings are not here, so its permissions cannot be looked at"
        remedy = "Run this where GRAPH_TENANT_ID, GRAPH_CLIENT_ID and what proves the app are set, or look in Entra."
        yield Finding("Graph", Level.UNKNOWN, text, remedy)
        return
    os.environ.update(target.settings)
    from shared import bootstrap
    from shared.graph.errors import TokenFailure
    from shared.settings_errors import SettingsError

    try:
        granted = _granted()
    except SettingsError as error:
        for one in error.problems:
            yield problem("Graph", f"{one.field}: {one.message}", "Change that setting.")
    except TokenFailure as error:
        yield problem("Graph", f"no token for the application: {error}", error.remedy or "Try again later.")
    else:
        yield from judge(granted)
    finally:
        bootstrap.stop()


def judge(granted: frozenset[str]) -> Iterator[Finding]:
    """What lacks; a part that may not be in use is a notice only."""
    missing = [need for need in NEEDS if not need.is_met(granted)]
    for need in missing:
        remedy = GRANT.format(name=need.name)
        if need.always:
            yield problem("Graph", f"the permission {need.name} is missing, for {need.part}", remedy)
        else:
            yield Finding(
                "Graph", Level.NOTICE, f"the permission {need.name} is missing; only needed for {need.part}", remedy
            )
    if not any(need.always for need in missing):
        yield Finding("Graph", Level.OK, f"a token with {', '.join(sorted(granted))}")


def _granted() -> frozenset[str]:
    """The roles in a new token of the application. Raises SettingsError, TokenFailure."""
    import jwt

    from shared.bootstrap.identity import application, graph_session
    from shared.graph.tokens import AppTokens

    token = AppTokens(application(), graph_session()).token()
    claims = jwt.decode(token, options={"verify_signature": False})
    return frozenset(claims.get("roles") or ())
