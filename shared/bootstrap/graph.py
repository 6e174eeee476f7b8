"""Microsoft Graph: identities, and the clients that use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from shared.bootstrap.engine import database, key_ring
from shared.bootstrap.once import load_settings, once
from shared.engine.errors import Problem
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.graph.activity import ActivityClient
    from shared.graph.auth import Application, DelegatedTokens
    from shared.graph.bot import BotClient
    from shared.graph.client import GraphClient
    from shared.graph.mail import MailClient
    from shared.graph.session import GraphSession
    from shared.graph.teams import TeamsClient
    from shared.graph.token_cache import CacheCipher
    from shared.graph.uploads import UploadClient, UploadUrls
    from shared.handlers.teams_routes import Routes
    from shared.outgoing.workflows import WorkflowClient
    from shared.postgres.token_cache import PostgresTokenCache


@once
def graph_session() -> GraphSession:
    from shared.graph.session import GraphSession
    from shared.settings import GraphSettings

    return GraphSession(ca_file=load_settings(GraphSettings).ca_file)


@once
def application() -> Application:
    from shared.graph.auth import Application
    from shared.settings import GraphSettings

    settings = load_settings(GraphSettings)
    secret = settings.client_secret.get_secret_value()
    return Application(settings.tenant_id, settings.client_id, secret, settings.authority)


@once
def application_client() -> GraphClient:
    """Graph as the application: mail, and all reading."""
    from shared.graph.auth import AppTokens
    from shared.graph.client import GraphClient
    from shared.settings import GraphSettings

    tokens = AppTokens(application(), graph_session())
    return GraphClient(graph_session(), tokens, load_settings(GraphSettings).base_url)


@once
def mail() -> MailClient:
    from shared.graph.mail import MailClient

    return MailClient(application_client())


@once
def uploads() -> UploadClient:
    from shared.graph.uploads import UploadClient
    from shared.settings import GraphSettings

    return UploadClient(graph_session(), load_settings(GraphSettings).base_url)


@once
def upload_urls() -> UploadUrls:
    from shared.graph.uploads import UploadUrls

    return UploadUrls(key_ring())


@once
def teams() -> TeamsClient:
    """Reads as the application and posts as the first service account; without one it can read."""
    from shared.graph.client import GraphClient
    from shared.graph.teams import TeamsClient
    from shared.settings import GraphSettings

    settings = load_settings(GraphSettings)
    if settings.service_accounts:
        return teams_as(settings.service_accounts[0])
    return TeamsClient(application_client(), GraphClient(graph_session(), NoAccount(), settings.base_url), lambda: None)


def teams_as(account: str) -> TeamsClient:
    """Reads as the application and posts as this service account. Raises RejectedError when it is none of them."""
    known = _service_accounts()
    if account.lower() not in known:
        from shared.engine.errors import RejectedError

        raise RejectedError(f"{account} is no service account: add it to GRAPH_SERVICE_ACCOUNT, then sign it in")
    return known[account.lower()].teams


@once
def teams_routes() -> Routes:
    """Who sends Teams messages, and with what there is."""
    from shared.handlers.teams_routes import Routes
    from shared.settings import GraphSettings, TeamsSettings

    settings = load_settings(TeamsSettings)
    try:
        accounts = load_settings(GraphSettings).service_accounts
    except SettingsError:
        accounts = None  # a process that only enqueues need not know Graph
    return Routes(
        settings.rules, frozenset(settings.workflows), accounts, resend_lost=settings.lost_workflow == "resend"
    )


@once
def bot() -> BotClient:
    """The Bot Framework as the application, or as a bot with an application of its own."""
    from shared.graph.auth import Application, AppTokens
    from shared.graph.bot import BOT_SCOPES, BotClient
    from shared.graph.client import GraphClient
    from shared.settings import TeamsSettings

    settings, app = load_settings(TeamsSettings), application()
    secret = settings.bot_client_secret
    if settings.bot_client_id is not None and secret is not None:
        tenant = settings.bot_tenant_id or app.tenant_id
        app = Application(tenant, settings.bot_client_id, secret.get_secret_value(), app.authority)
    elif settings.bot_tenant_id is not None:
        app = replace(app, tenant_id=settings.bot_tenant_id)
    tokens = AppTokens(app, graph_session(), scopes=BOT_SCOPES)
    connector = GraphClient(graph_session(), tokens, settings.bot_service_url, "the Bot Framework")
    return BotClient(connector, app.client_id)


@once
def workflows() -> WorkflowClient:
    from shared.outgoing.workflows import WorkflowClient
    from shared.settings import TeamsSettings

    return WorkflowClient(graph_session(), load_settings(TeamsSettings).workflows)


@once
def activity_feed() -> ActivityClient:
    from shared.graph.activity import ActivityClient

    return ActivityClient(application_client())


def sign_in(show: Callable[[str], None] = print, account: str | None = None) -> str:
    """Sign a service account in with a device code, the first one unless another is named; returns the user name.

    `show` tells the person what to do.
    """
    from shared.graph.auth import sign_in as run
    from shared.settings import GraphSettings

    accounts = load_settings(GraphSettings).service_accounts
    if not accounts:
        raise SettingsError(
            [Problem("GRAPH_SERVICE_ACCOUNT", "it is not set: the user name of the account to sign in")]
        )
    if account is not None and account.lower() not in [name.lower() for name in accounts]:
        raise SettingsError([Problem("GRAPH_SERVICE_ACCOUNT", f"{account} is not in it; add it")])
    return run(
        application(),
        graph_session(),
        account=account or accounts[0],
        store=_token_cache(),
        cipher=cache_cipher(),
        show=show,
    )


class NoAccount:
    """The token source of an app without a service account."""

    def token(self, **_: Any) -> str:
        from shared.graph.errors import TokenRefused

        raise TokenRefused("No service account is set.", remedy="Set GRAPH_SERVICE_ACCOUNT, then sign it in.")


@dataclass(frozen=True, slots=True)
class _ServiceAccount:
    tokens: DelegatedTokens
    teams: TeamsClient


def service_account_tokens(account: str) -> DelegatedTokens:
    """The tokens of one of the service accounts, the same for the whole process; KeyError: it is none of them."""
    return _service_accounts()[account.lower()].tokens


@once
def _service_accounts() -> dict[str, _ServiceAccount]:
    """Each account of GRAPH_SERVICE_ACCOUNT by its name in small letters."""
    from shared.graph.auth import DelegatedTokens
    from shared.graph.client import GraphClient
    from shared.graph.teams import TeamsClient
    from shared.settings import GraphSettings

    settings = load_settings(GraphSettings)
    found = {}
    for name in settings.service_accounts:
        tokens = DelegatedTokens(
            application(), graph_session(), account=name, store=_token_cache(), cipher=cache_cipher()
        )
        poster = GraphClient(graph_session(), tokens, settings.base_url)
        found[name.lower()] = _ServiceAccount(tokens, TeamsClient(application_client(), poster, tokens.user_id))
    return found


def _token_cache() -> PostgresTokenCache:
    from shared.postgres.token_cache import PostgresTokenCache

    return PostgresTokenCache(database())


def cache_cipher() -> CacheCipher:
    from shared.graph.token_cache import CacheCipher

    return CacheCipher(key_ring())
