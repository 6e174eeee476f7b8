"""The authority: OpenID discovery, and tokens by client credentials, device or browser code, and refresh token."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

import jwt

from local.fake_graph import managed_identity, tokens
from local.fake_graph.authority_error import AuthorityError
from local.fake_graph.call import Answer, Json
from local.fake_graph.client_proof import check_proof, proves_itself
from local.fake_graph.code_flows import OPENID_SCOPES, CodeFlows, permissions_of
from local.fake_graph.state import CLIENT, TENANT, User, World

#: Refresh tokens have an audience of their own, so that none passes for an access token.
REFRESH = "urn:fake:refresh"
TOKEN_SECONDS = 3599


class Authority:
    """The endpoints of the one tenant under `base_url`."""

    def __init__(self, world: World, base_url: str) -> None:
        self._world = world
        self._base_url = base_url
        self.flows = CodeFlows(world, base_url)

    def answer(
        self, method: str, path: str, query: dict[str, str], form: dict[str, str], headers: dict[str, str]
    ) -> Answer:
        """Answer a request to /{tenant}/…, or to a managed identity's endpoint; `form` is its decoded body."""
        if path in (managed_identity.APP_SERVICE, managed_identity.IMDS):
            return managed_identity.answer(self._world, self._base_url, path, query, headers)
        correlation_id = headers.get("client-request-id", str(uuid.uuid4()))
        tenant, _, rest = path.strip("/").partition("/")
        try:
            if tenant != TENANT:
                raise AuthorityError("invalid_tenant", 90002, f"Tenant '{tenant}' not found.")
            match method, rest:
                case "GET", "v2.0/.well-known/openid-configuration":
                    return Answer(200, self._discovery())
                case "GET", "discovery/v2.0/keys":
                    return Answer(200, {"keys": []})
                case "POST", "oauth2/v2.0/token":
                    return Answer(200, self._token(form), {"Cache-Control": "no-store"})
                case "POST", "oauth2/v2.0/devicecode":
                    return Answer(200, self.flows.device_code(form))
                case "GET", "oauth2/v2.0/authorize":
                    return self.flows.authorize(query)
        except AuthorityError as error:
            return error.answer(correlation_id)
        return AuthorityError("invalid_request", 900561, f"No endpoint {method} /{rest}.", 404).answer(correlation_id)

    def _discovery(self) -> Json:
        root = f"{self._base_url}/{TENANT}"
        return {
            "issuer": f"{root}/v2.0",
            "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
            "token_endpoint": f"{root}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{root}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{root}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token"],
            "scopes_supported": sorted(OPENID_SCOPES),
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["HS256"],
        }

    def _token(self, form: dict[str, str]) -> Json:
        client = form.get("client_id", "")
        if client != CLIENT:
            raise AuthorityError(
                "unauthorized_client", 700016,
                f"Application with identifier '{client}' was not found in the directory '{TENANT}'.",
            )  # fmt: skip
        check_proof(form, self._world.registration, CLIENT, f"{self._base_url}/{TENANT}/oauth2/v2.0/token")
        if not proves_itself(form) and not self._world.registration.public_client:
            text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
            raise AuthorityError("invalid_client", 7000218, text, 401)
        match form.get("grant_type"):
            case "client_credentials":
                return self._app_token(form)
            case "refresh_token":
                return self._refreshed(form)
            case "device_code" | "urn:ietf:params:oauth:grant-type:device_code":
                return self._user_token(*self.flows.redeem_device_code(form), form)
            case "authorization_code":
                user, scope, nonce = self.flows.redeem_auth_code(form)
                return self._user_token(user, scope, form, nonce)
            case grant:
                raise AuthorityError("unsupported_grant_type", 70003, f"The grant type '{grant}' is not known.")

    def _app_token(self, form: dict[str, str]) -> Json:
        if not proves_itself(form):
            raise AuthorityError("invalid_client", 7000216, "'client_assertion' or 'client_secret' is required.", 401)
        self._world.registration.refuse("application")
        audience = form.get("scope", "").removesuffix("/.default")
        if audience not in (tokens.GRAPH, tokens.BOT_FRAMEWORK) or not form["scope"].endswith("/.default"):
            raise AuthorityError(
                "invalid_scope", 1002012,
                f"The provided value for scope {form.get('scope')} is not valid. Client credential flows must have "
                "a scope value with /.default suffixed to the resource identifier (application ID URI).",
            )  # fmt: skip
        granted = self._world.registration.granted if audience == tokens.GRAPH else []
        return {
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "ext_expires_in": TOKEN_SECONDS,
            "access_token": self._access_token(None, granted, form, audience),
        }

    def _refreshed(self, form: dict[str, str]) -> Json:
        try:
            payload = tokens.verify(form.get("refresh_token", ""), REFRESH)
        except jwt.InvalidTokenError:
            raise AuthorityError("invalid_grant", 9002313, "The refresh token is malformed.") from None
        if payload["public"] and proves_itself(form):
            text = "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."
            raise AuthorityError("invalid_client", 700025, text, 401)
        user = self._world.find_user(payload["oid"])
        if user is None or payload["issued"] < self._world.sessions_valid_from.get(payload["oid"], 0):
            raise AuthorityError("invalid_grant", 50173, "The provided grant has expired due to it being revoked.")
        return self._user_token(user, form.get("scope") or payload["scope"], form)

    def _user_token(self, user: User, scope: str, form: dict[str, str], nonce: str = "") -> Json:
        permissions = permissions_of(scope)
        self._world.registration.refuse(user.id)
        if user.id in self._world.registration.without_consent:
            text = "The user or administrator has not consented to use the application."
            raise AuthorityError("invalid_grant", 65001, text)
        now = time.time()
        identity = {
            "aud": CLIENT, "iss": f"{self._base_url}/{TENANT}/v2.0", "iat": int(now), "exp": int(now) + 3600,
            "sub": f"pairwise-{user.id}", "oid": user.id, "tid": TENANT, "preferred_username": user.upn,
            "name": user.name, "ver": "2.0", "nonce": nonce or None,
        }  # fmt: skip
        refresh = {
            "aud": REFRESH, "oid": user.id, "scope": scope, "issued": now, "jti": uuid.uuid4().hex,
            "public": not proves_itself(form),
        }  # fmt: skip
        client_info = json.dumps({"uid": user.id, "utid": TENANT}).encode()
        return {
            "token_type": "Bearer",
            "scope": scope,
            "expires_in": TOKEN_SECONDS,
            "ext_expires_in": TOKEN_SECONDS,
            "access_token": self._access_token(user.id, permissions, form),
            "refresh_token": tokens.sign(refresh),
            "id_token": tokens.sign(identity),
            "client_info": base64.urlsafe_b64encode(client_info).decode().rstrip("="),
        }

    def _access_token(
        self, user: str | None, permissions: list[str], form: dict[str, str], audience: str = tokens.GRAPH
    ) -> str:
        claims: Any = None
        if form.get("claims"):
            try:
                claims = json.loads(form["claims"])
            except ValueError:
                raise AuthorityError("invalid_request", 50146, "The claims parameter is not JSON.") from None
        return tokens.access_token(
            tenant=TENANT, client=CLIENT, user=user, scopes=permissions,
            seconds=TOKEN_SECONDS, claims=claims, audience=audience,
        )  # fmt: skip
