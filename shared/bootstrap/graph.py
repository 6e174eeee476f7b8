"""Microsoft Graph: the clients that handlers call it with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shared.bootstrap.engine import key_ring
from shared.bootstrap.identity import NoAccount, application, graph_session, service_account_tokens, service_accounts
from shared.bootstrap.once import load_settings, once
from shared.engine.errors import Problem
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.graph.activity import ActivityClient
    from shared.graph.bot import BotClient, BotTokens
    from shared.graph.client import GraphClient
    from shared.graph.credentials import Application
    from shared.graph.delta import DeltaClient
    from shared.graph.mail import MailClient
    from shared.graph.teams import TeamsClient
    from shared.graph.uploads import UploadClient, UploadUrls
    from shared.handlers.teams_routes import Routes
    from shared.outgoing.workflows import WorkflowClient


@once
def application_client() -> GraphClient:
    """Graph as the application: mail, and all reading."""
    from shared.graph.client import GraphClient
    from shared.graph.tokens import AppTokens
    from shared.graph_settings import GraphSettings

    tokens = AppTokens(application(), graph_session())
    return GraphClient(graph_session(), tokens, load_settings(GraphSettings).base_url)


@once
def mail() -> MailClient:
    from shared.graph.mail import MailClient

    return MailClient(application_client())


@once
def uploads() -> UploadClient:
    from shared.graph.uploads import UploadClient
    from shared.graph_settings import GraphSettings

    return UploadClient(graph_session(), load_settings(GraphSettings).base_url)


@once
def upload_urls() -> UploadUrls:
    from shared.graph.uploads import UploadUrls

    return UploadUrls(key_ring())


@once
def delta() -> DeltaClient:
    from shared.graph.delta import DeltaClient

    return DeltaClient(application_client())


@once
def teams() -> TeamsClient:
    """Reads as the application and posts as the first service account; without one it can read."""
    from shared.graph.client import GraphClient
    from shared.graph.teams import TeamsClient
    from shared.graph_settings import GraphSettings

    if service_accounts():
        return teams_as(service_accounts()[0])
    nobody = GraphClient(graph_session(), NoAccount(), load_settings(GraphSettings).base_url)
    return TeamsClient(application_client(), nobody, lambda: None)


def teams_as(account: str) -> TeamsClient:
    """Reads as the application and posts as this service account. Raises RejectedError when it is none of them."""
    known = _teams_clients()
    if account.lower() not in known:
        from shared.engine.errors import RejectedError

        raise RejectedError(f"{account} is no service account: add it to GRAPH_SERVICE_ACCOUNT, then sign it in")
    return known[account.lower()]


@once
def _teams_clients() -> dict[str, TeamsClient]:
    """One for each service account, by its name in small letters."""
    from shared.graph.client import GraphClient
    from shared.graph.teams import TeamsClient
    from shared.graph_settings import GraphSettings

    found = {}
    for name in service_accounts():
        tokens = service_account_tokens(name)
        poster = GraphClient(graph_session(), tokens, load_settings(GraphSettings).base_url)
        found[name.lower()] = TeamsClient(application_client(), poster, tokens.user_id)
    return found


@once
def teams_routes() -> Routes:
    """Who sends Teams messages, and with what there is."""
    from shared.handlers.teams_routes import Routes
    from shared.teams_settings import TeamsSettings

    settings = load_settings(TeamsSettings)
    accounts: tuple[str, ...] | None
    try:
        accounts = service_accounts()
    except SettingsError:
        accounts = None  # a process that only enqueues need not know Graph
    known = [account.lower() for account in accounts or ()]
    for _, route in settings.rules if accounts is not None else ():
        if route.sender == "account" and route.name is not None and route.name.lower() not in known:
            raise SettingsError(
                [Problem("TEAMS_SENDERS", f"{route.name} is not in GRAPH_SERVICE_ACCOUNT; add it there")]
            )
    return Routes(
        settings.rules, frozenset(settings.workflows), accounts, resend_lost=settings.lost_workflow == "resend"
    )


@once
def bot() -> BotClient:
    from shared.graph.bot import BotClient
    from shared.graph.client import GraphClient
    from shared.teams_settings import TeamsSettings

    service_url = load_settings(TeamsSettings).bot_service_url
    connector = GraphClient(graph_session(), new_bot_tokens(), service_url, "the Bot Framework")
    return BotClient(connector, _bot_application().client_id)


def new_bot_tokens() -> BotTokens:
    from shared.graph.bot import BOT_SCOPES, BotTokens
    from shared.graph.tokens import AppTokens
    from shared.teams_settings import TeamsSettings

    is_own = load_settings(TeamsSettings).bot_client_id is not None
    return BotTokens(AppTokens(_bot_application(), graph_session(), scopes=BOT_SCOPES), own_application=is_own)


def _bot_application() -> Application:
    """The application of Graph, or one of the bot's own."""
    from shared.graph.credentials import ClientSecret, ManagedIdentity
    from shared.teams_settings import TeamsSettings

    settings, app = load_settings(TeamsSettings), application()
    secret = settings.bot_client_secret
    if settings.bot_client_id is not None and secret is not None:
        app = replace(app, client_id=settings.bot_client_id, credential=ClientSecret(secret.get_secret_value()))
    elif isinstance(app.credential, ManagedIdentity):
        if app.credential.client_id is None:
            raise SettingsError([Problem("GRAPH_MANAGED_IDENTITY", "a bot needs its client id in place of system")])
        app = replace(app, client_id=app.credential.client_id)
    return replace(app, tenant_id=settings.bot_tenant_id or app.tenant_id)


@once
def workflows() -> WorkflowClient:
    from shared.outgoing.workflows import WorkflowClient
    from shared.teams_settings import TeamsSettings

    return WorkflowClient(graph_session(), load_settings(TeamsSettings).workflows)


@once
def activity_feed() -> ActivityClient:
    from shared.graph.activity import ActivityClient

    return ActivityClient(application_client())
