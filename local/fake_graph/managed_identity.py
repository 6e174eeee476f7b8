"""The managed identities' endpoints: App Service's (IDENTITY_ENDPOINT) and a virtual machine's (IMDS)."""

from __future__ import annotations

import time
from typing import Any

from local.fake_graph import tokens
from local.fake_graph.call import Answer
from local.fake_graph.registration import EXCHANGE, Identity
from local.fake_graph.state import TENANT, World

APP_SERVICE = "/msi/token"
IMDS = "/metadata/identity/oauth2/token"
#: What App Service puts into IDENTITY_HEADER.
HEADER = "local-identity-header"
TOKEN_SECONDS = 24 * 3600


def answer(world: World, base_url: str, path: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
    """A token for `resource`, or the refusal in the endpoint's own form."""
    is_app_service = path == APP_SERVICE
    if is_app_service and headers.get("x-identity-header") != HEADER:
        return _app_service_error(401, "The identity header is wrong.")
    if not is_app_service and headers.get("metadata", "").lower() != "true":
        return _imds_error("bad_request_102", "Required metadata header not specified")
    identity = world.registration.identities.get(query.get("client_id", ""))
    if identity is None:
        if is_app_service:
            return _app_service_error(400, "No Managed Identity found for specified ClientId/ResourceId/PrincipalId.")
        return _imds_error("invalid_request", "Identity not found")
    resource = query.get("resource", "")
    if resource not in (tokens.GRAPH, EXCHANGE):
        return _app_service_error(500, "invalid_resource") if is_app_service else _imds_error("invalid_resource", "")
    now = int(time.time())
    body: dict[str, Any] = {
        "access_token": _token(identity, resource, base_url),
        "expires_on": str(now + TOKEN_SECONDS),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": identity.client_id,
    }
    return Answer(200, body if is_app_service else body | {"expires_in": str(TOKEN_SECONDS)})


def _token(identity: Identity, resource: str, base_url: str) -> str:
    if resource == tokens.GRAPH:
        return tokens.access_token(
            tenant=TENANT,
            client=identity.client_id,
            user=None,
            scopes=identity.roles,
            seconds=TOKEN_SECONDS,
            claims=None,
        )
    now = int(time.time())
    return tokens.sign(
        {
            "iss": f"{base_url}/{TENANT}/v2.0",
            "sub": identity.principal,
            "aud": EXCHANGE,
            "idtyp": "app",
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
        }
    )


def _app_service_error(status: int, message: str) -> Answer:
    return Answer(status, {"statusCode": status, "message": message, "correlationId": "00000000-local"})


def _imds_error(error: str, description: str) -> Answer:
    return Answer(400, {"error": error, "error_description": description})
