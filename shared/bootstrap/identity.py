"""Who the product is to Microsoft 365: the application, the service accounts, and who looks after both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from shared.bootstrap.engine import database, key_ring
from shared.bootstrap.once import load_settings, once
from shared.engine.errors import Problem
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.graph.credentials import Application
    from shared.graph.delegated_tokens import DelegatedTokens
    from shared.graph.session import GraphSession
    from shared.graph.sign_in import Way
    from shared.graph.token_cache import CacheCipher
    from shared.monitoring.identities import IdentityWatch
    from shared.postgres.identity_waits import PostgresIdentityWaits
    from shared.postgres.token_cache import PostgresTokenCache

#: What jobs wait for that need a service account where none is set.
NO_ACCOUNT = "a service account"


@once
def graph_session() -> GraphSession:
    from shared.graph.session import GraphSession
    from shared.graph_settings import GraphSettings

    return GraphSession(ca_file=load_settings(GraphSettings).ca_file)


@once
def application() -> Application:
    from shared.graph.credentials import Application
    from shared.graph_settings import GraphSettings

    settings = load_settings(GraphSettings)
    return Application(settings.tenant_id, settings.client_id, settings.credential(), settings.authority)


@once
def service_accounts() -> tuple[str, ...]:
    """The user names of the accounts that post to Teams, the default one first."""
    from shared.graph_settings import GraphSettings

    return load_settings(GraphSettings).service_accounts


def service_account_tokens(account: str) -> DelegatedTokens:
    """The tokens of one of the service accounts, the same for the whole process; KeyError: it is none of them."""
    return _all_tokens()[account.lower()]


@once
def _all_tokens() -> dict[str, DelegatedTokens]:
    """Of each service account, by its name in small letters."""
    return {name.lower(): _new_tokens(name) for name in service_accounts()}


def own_account_ids() -> set[str]:
    """The object ids of the service accounts that have signed in."""
    return {user_id for tokens in _all_tokens().values() if (user_id := tokens.user_id()) is not None}


def _new_tokens(account: str) -> DelegatedTokens:
    from shared.graph.delegated_tokens import DelegatedTokens

    return DelegatedTokens(application(), graph_session(), account=account, store=_token_cache(), cipher=cache_cipher())


class NoAccount:
    """The token source of an app without a service account."""

    def token(self, **_: object) -> str:
        from shared.graph.errors import TokenRefused

        remedy = "Set GRAPH_SERVICE_ACCOUNT, then sign it in."
        raise TokenRefused("No service account is set.", remedy=remedy, identity=NO_ACCOUNT)


def sign_in(show: Callable[[str], None] = print, account: str | None = None, way: Way | None = None) -> str:
    """Sign a service account in, the first one unless another is named, and let the jobs go on that wait for it.

    By a device code, unless another `way` (shared.graph.sign_in) is given. Returns the user name; `show` tells the
    person what to do.
    """
    from shared.graph.sign_in import sign_in as run
    from shared.graph.sign_in import with_code

    accounts = service_accounts()
    if not accounts:
        raise SettingsError(
            [Problem("GRAPH_SERVICE_ACCOUNT", "it is not set: the user name of the account to sign in")]
        )
    known = {name.lower(): name for name in accounts}
    wanted = (account or accounts[0]).lower()
    if wanted not in known:
        raise SettingsError([Problem("GRAPH_SERVICE_ACCOUNT", f"{account} is not in it; add it")])
    name = run(
        application(),
        graph_session(),
        account=known[wanted],
        store=_token_cache(),
        cipher=cache_cipher(),
        show=show,
        way=way or with_code,
    )
    identity_waits().mend(known[wanted])
    return name


@once
def identity_waits() -> PostgresIdentityWaits:
    from shared.postgres.identity_waits import PostgresIdentityWaits

    return PostgresIdentityWaits(database())


@once
def identity_watch() -> IdentityWatch:
    """What lets jobs go on once their identity works again."""
    from shared.monitoring.identities import IdentityWatch
    from shared.postgres.open_alerts import OpenAlerts

    return IdentityWatch(identity_waits(), OpenAlerts(database()), _failure_of, _certificate_ends)


def _failure_of(identity: str) -> str | None:
    """Why the authority gives this identity no new token; None when it does, or nothing needs it any more."""
    from shared.bootstrap.graph import new_bot_tokens
    from shared.graph.bot import BOT
    from shared.graph.credentials import APPLICATION
    from shared.graph.errors import TokenFailure
    from shared.graph.tokens import AppTokens

    try:
        if identity == NO_ACCOUNT:
            return None if service_accounts() else "no service account is set"
        if identity == APPLICATION:
            AppTokens(application(), graph_session()).token(refused="")
        elif identity == BOT:
            new_bot_tokens().token(refused="")
        elif identity.lower() in _all_tokens():
            _new_tokens(identity).token(refused="")
    except (TokenFailure, SettingsError) as failure:
        return str(failure)
    return None


def _certificate_ends() -> datetime | None:
    from shared.graph.credentials import ClientCertificate

    try:
        credential = application().credential
    except SettingsError:
        return None
    return credential.expires_at if isinstance(credential, ClientCertificate) else None


def _token_cache() -> PostgresTokenCache:
    from shared.postgres.token_cache import PostgresTokenCache

    return PostgresTokenCache(database())


def cache_cipher() -> CacheCipher:
    from shared.graph.token_cache import CacheCipher

    return CacheCipher(key_ring())
