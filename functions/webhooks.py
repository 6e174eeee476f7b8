"""Where Graph posts: handshakes and notifications. Both addresses take both kinds of notification.

The handshake needs no settings and loads nothing: Graph gives a cold start ten seconds, and asks only once.
"""

from __future__ import annotations

import logging
import time

import azure.functions as func

from functions.apart import run_apart
from functions.problem import HEADERS, METHODS, answer, problem, wrong_method
from shared import tracing
from shared.engine.errors import TransportUnavailableError
from shared.settings_errors import SettingsError

bp = func.Blueprint()  # type: ignore[no-untyped-call]
log = logging.getLogger(__name__)

LONGEST_TOKEN_BYTES = 2048
#: A hundred chat messages of the largest size, encrypted, are about as much.
LARGEST_DELIVERY_BYTES = 5 * 1024 * 1024
#: Graph counts an answer after 3 s as a failure; what is not durable by then, it shall send again.
DEADLINE_SECONDS = 2.5
RETRY_SOON = {"Retry-After": "10"}


@bp.function_name("take_notifications")
@bp.route("webhooks/graph", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def take_notifications(req: func.HttpRequest) -> func.HttpResponse:
    """Change notifications."""
    return await _take(req)


@bp.function_name("take_lifecycle_notifications")
@bp.route("webhooks/graph/lifecycle", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
async def take_lifecycle_notifications(req: func.HttpRequest) -> func.HttpResponse:
    """Lifecycle notifications."""
    return await _take(req)


async def _take(req: func.HttpRequest) -> func.HttpResponse:
    until = time.monotonic() + DEADLINE_SECONDS  # a cold start's imports count: Graph counts them too
    refusal = wrong_method(req, "POST")
    if refusal is not None:
        return refusal
    token = next((text for name, text in req.params.items() if name.lower() == "validationtoken"), None)
    return await run_apart("deliveries", _deliver, req, until) if token is None else _shake_hands(token)


def _shake_hands(token: str) -> func.HttpResponse:
    """The token as plain text. The host has decoded it, once; decoding it again would spoil a `+` or a `%`."""
    try:
        body = token.encode()
    except UnicodeEncodeError:
        return problem(400, "validationToken is not text")
    if len(body) > LONGEST_TOKEN_BYTES or not token.isprintable() or "<" in token or ">" in token:
        return problem(400, f"validationToken must be plain text of at most {LONGEST_TOKEN_BYTES} bytes")
    return func.HttpResponse(body, headers=HEADERS, mimetype="text/plain", charset="utf-8")


def _deliver(req: func.HttpRequest, until: float) -> func.HttpResponse:
    from shared import bootstrap
    from shared.handlers.intake import DeliveryError

    if req.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return problem(415, "a compressed body is not taken")
    body = req.get_body()
    if len(body) > LARGEST_DELIVERY_BYTES:
        return problem(413, f"a delivery has at most {LARGEST_DELIVERY_BYTES:,} bytes")
    try:
        with tracing.request(req.headers.get("traceparent"), "POST /api/webhooks/graph"):
            bootstrap.intake().take(body, until)
    except DeliveryError as error:
        return problem(400, str(error))
    except TransportUnavailableError as error:
        log.warning("delivery.not_taken", extra={"error": str(error)})
        return problem(503, "the notifications could not be queued; send them again", headers=RETRY_SOON)
    except SettingsError as error:
        log.error("delivery.not_configured", extra={"error": str(error)})
        return problem(503, "the webhook is not configured", headers=RETRY_SOON)
    return answer(202)
