"""What notifications are checked, decrypted and recorded with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.bootstrap.engine import database, producer, sealer, store
from shared.bootstrap.identity import graph_session
from shared.bootstrap.once import load_settings, once
from shared.engine.errors import MessageHeldError
from shared.settings_errors import SettingsError

if TYPE_CHECKING:
    from shared.graph.rich import EncryptionCertificates
    from shared.graph.validation_tokens import ValidationTokens
    from shared.handlers.webhooks import NotificationProcessor


@once
def encryption_certificates() -> EncryptionCertificates:
    """Our certificates for resource data: subscriptions name the current one, all of them decrypt."""
    from shared.graph.rich import EncryptionCertificates, read_certificate
    from shared.settings import ResourceDataSettings

    settings = load_settings(ResourceDataSettings)
    given = (settings.certificate, settings.previous_certificate)
    return EncryptionCertificates(*(read_certificate(text.get_secret_value()) for text in given if text is not None))


@once
def validation_tokens() -> ValidationTokens:
    from shared.graph.validation_tokens import SigningKeys, ValidationTokens
    from shared.graph_settings import GraphSettings

    settings = load_settings(GraphSettings)
    return ValidationTokens(
        SigningKeys(graph_session(), settings.authority),
        tenant_id=settings.tenant_id,
        client_id=settings.client_id,
        authority=settings.authority,
    )


@once
def notification_processor() -> NotificationProcessor:
    from shared.handlers.rich_contents import RichContents
    from shared.handlers.webhooks import NotificationProcessor
    from shared.postgres.alerts import PostgresAlerts
    from shared.postgres.webhook_events import PostgresWebhookEvents

    return NotificationProcessor(
        PostgresWebhookEvents(database(), sealer()),
        store().bury,
        producer(),
        RichContents(_validation_tokens_or_wait, encryption_certificates()),
        PostgresAlerts(database()),
    )


def _validation_tokens_or_wait() -> ValidationTokens:
    """A delivery whose settings are missing waits for them; it must not die of that."""
    try:
        return validation_tokens()
    except SettingsError as error:
        raise MessageHeldError(f"resource data cannot be checked: {error}") from error
