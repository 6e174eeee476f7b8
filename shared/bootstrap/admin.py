"""The admin API: who may use it, and what it works with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shared.bootstrap.engine import database, key_ring, producer_on, queues, schedules, sealer, store
from shared.bootstrap.monitoring import overview, reports, statistics, thresholds
from shared.bootstrap.once import load_settings, once
from shared.bootstrap.services import delivery_failures
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.access import AdminAccess
    from shared.admin.ports import Admin
    from shared.graph.access_tokens import AccessTokens
    from shared.postgres.refusals import PostgresRefusals


@once
def admin() -> Admin:
    from shared.admin.ports import Admin
    from shared.postgres.admin_orders import PostgresOrders
    from shared.postgres.admin_reads import PostgresReads

    return Admin(
        reads=PostgresReads(database()),
        orders=PostgresOrders(database(), sealer(), queues, producer_on),
        store=store(),
        schedules=schedules,
        delivery_failures=_failures_of,
        statistics=statistics,
        overview=lambda: overview().queues(),
        thresholds=thresholds,
        reports=reports,
        digests=_digests,
        accounts=_accounts,
    )


@once
def admin_access() -> AdminAccess:
    """Keys always; tokens and App Service's header where the settings switch them on."""
    from shared.access import AdminAccess
    from shared.settings import AdminSettings

    settings = load_settings(AdminSettings)
    given = (settings.key, settings.previous_key)
    return AdminAccess(
        *(key.get_secret_value() for key in given if key is not None),
        tokens=_read_token if settings.token_audience is not None else None,
        app_service=settings.app_service_auth,
        refusals=_refusals_or_none(),
    )


@once
def admin_tokens() -> AccessTokens:
    from shared.bootstrap.identity import graph_session
    from shared.graph.access_tokens import AccessTokens
    from shared.graph.validation_tokens import SigningKeys
    from shared.graph_settings import GraphSettings
    from shared.settings import AdminSettings

    settings, audience = load_settings(GraphSettings), load_settings(AdminSettings).token_audience or ""
    return AccessTokens(
        SigningKeys(graph_session(), settings.authority),
        tenant_id=settings.tenant_id,
        audiences=tuple(part.strip() for part in audience.split(",")),
        authority=settings.authority,
    )


def _read_token(token: str) -> tuple[str, Sequence[str]] | None:
    from shared.access import TokensUnavailableError
    from shared.graph.validation_tokens import InvalidTokenError, KeysUnavailableError

    try:
        return admin_tokens().read(token)
    except InvalidTokenError:
        return None
    except (KeysUnavailableError, SettingsError) as error:
        raise TokensUnavailableError(str(error)) from error


def _refusals_or_none() -> PostgresRefusals | None:
    """Without a database each instance counts for itself."""
    from shared.postgres.refusals import PostgresRefusals

    try:
        return PostgresRefusals(database())
    except SettingsError:
        return None


def _digests(name: str) -> list[bytes]:
    from shared.handlers.letter_names import searched

    try:
        return key_ring().digests(searched(name))
    except SettingsError:  # without a key no names are kept
        return []


def _accounts() -> tuple[str, ...]:
    """None where Graph's settings are wrong or missing: health says so."""
    from shared.bootstrap.identity import service_accounts

    try:
        return service_accounts()
    except SettingsError:
        return ()


def _failures_of(job_id: UUID) -> list[dict[str, Any]]:
    return [failure.as_json() for failure in delivery_failures().of_job(job_id)]
