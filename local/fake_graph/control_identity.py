"""Control calls about who may sign in: the app's credentials and consents, accounts, managed identities."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cryptography import x509

from local.fake_graph.call import Json
from local.fake_graph.registration import FederatedCredential, Identity
from local.fake_graph.state import World

Route = tuple[str, str, Callable[..., Any]]


def routes(world: World) -> list[Route]:
    """Method, path and handler of each call."""

    def change(handler: Callable[[World, Json], None]) -> Callable[[Json], Json]:
        def run(body: Json) -> Json:
            handler(world, body)
            return {}

        return run

    return [
        ("POST", "app/secret", change(_set_secret)),
        ("POST", "app/certificates", change(_add_certificate)),
        ("POST", "app/federated", change(_add_federated)),
        ("POST", "app/consent", change(_set_consent)),
        ("POST", "app/sign-in", change(_set_sign_in)),
        ("POST", "refuse", change(_refuse)),
        ("POST", "identities", change(_set_identity)),
        ("POST", "browser", change(_set_browser)),
        ("POST", "expire-tokens", change(_expire_tokens)),
        ("POST", "revoke-sessions", change(_revoke_sessions)),
    ]


def _set_secret(world: World, body: Json) -> None:
    world.registration.secrets[str(body["secret"])] = bool(body.get("expired", False))


def _add_certificate(world: World, body: Json) -> None:
    world.registration.certificates.append(x509.load_pem_x509_certificate(body["pem"].encode()))


def _add_federated(world: World, body: Json) -> None:
    world.registration.federated.append(FederatedCredential(**body))


def _set_consent(world: World, body: Json) -> None:
    """`application`: what is granted to the app; or `user` and `granted`."""
    registration = world.registration
    if "application" in body:
        registration.granted = list(body["application"])
        return
    user = world.user(body["user"]).id
    if body["granted"]:
        registration.without_consent.discard(user)
    else:
        registration.without_consent.add(user)


def _set_sign_in(world: World, body: Json) -> None:
    if "redirectUris" in body:
        world.registration.redirect_uris = list(body["redirectUris"])
    if "publicClient" in body:
        world.registration.public_client = bool(body["publicClient"])


def _refuse(world: World, body: Json) -> None:
    """Every token of this subject (a user, or "application") is refused; without `code` no more."""
    subject = body["subject"] if body["subject"] == "application" else world.user(body["subject"]).id
    if "code" in body:
        error, code = str(body.get("error", "invalid_grant")), int(body["code"])
        world.registration.refused[subject] = (error, code, str(body.get("message", "Refused on demand.")))
    else:
        world.registration.refused.pop(subject, None)


def _set_identity(world: World, body: Json) -> None:
    """A managed identity; without `clientId` the system-assigned one, without `roles` there is none."""
    identities, name = world.registration.identities, str(body.get("clientId", ""))
    known = identities.pop(name, None)
    if "roles" in body:
        client_id = name or (known.client_id if known else name)
        identities[name] = Identity(client_id, list(body["roles"]))


def _set_browser(world: World, body: Json) -> None:
    """Who sits before the browser, whatever account it is asked for; null: the account that it is asked for."""
    world.browser_user = body["user"]


def _expire_tokens(world: World, _: Json) -> None:
    world.tokens_valid_from = time.time()


def _revoke_sessions(world: World, body: Json) -> None:
    """Of one `user`, or of all."""
    if "user" in body:
        world.sessions_valid_from[world.user(body["user"]).id] = time.time()
        return
    world.tokens_valid_from = time.time()
    world.sessions_valid_from = dict.fromkeys(world.users, time.time())
