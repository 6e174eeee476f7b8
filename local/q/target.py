"""Which app to talk to, and as whom: options, then the environment, then the local stack that runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from local.q.errors import CommandError, Exit, usage
from shared.access import KEY_HEADER

URL, KEY, TOKEN = "FLEET_QUEUE_URL", "FLEET_QUEUE_KEY", "FLEET_QUEUE_TOKEN"
NEITHER = f"Set {URL} to the app's address (https://app.example), or start one here with ./dev up."


@dataclass(frozen=True, slots=True)
class Target:
    """`url` ends in /api/queue. `settings` are those of the app's programs where the app runs here; else empty.

    `proof` is the header that says who asks: its value is a secret.
    """

    url: str
    proof: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        return is_loopback(urlsplit(self.url).hostname)


def find_target(
    url: str | None, key_file: Path | None, use_token: bool, running: Callable[[], Mapping[str, str]]
) -> Target:
    """`running` gives the settings of the local stack, empty when none runs: its key goes to no other address."""
    environment = os.environ
    given = url or environment.get(URL)
    settings = {} if given else running()
    address = given or settings.get("WEBHOOK_BASE_URL")
    if not address:
        raise CommandError(Exit.UNAVAILABLE, "no app is named, and none runs here.", hint=NEITHER)
    proof = _given_proof(key_file, use_token)
    if not proof and "ADMIN_KEY" in settings:
        proof = {KEY_HEADER: settings["ADMIN_KEY"]}
    return Target(api_address(address), proof, settings)


def _given_proof(key_file: Path | None, use_token: bool) -> dict[str, str]:
    key, token = os.environ.get(KEY), os.environ.get(TOKEN)
    if use_token and not token:
        raise usage(f"--token: {TOKEN} is not set; put an access token of Microsoft Entra for the app into it")
    if key_file is not None:
        try:
            key = key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise usage(f"--key-file: {key_file} cannot be read: {error}") from error
        if not key:
            raise usage(f"--key-file: {key_file} is empty")
    if token and (use_token or not key):
        return {"Authorization": f"Bearer {_printable(token, TOKEN)}"}
    return {KEY_HEADER: _printable(key, KEY)} if key else {}


def _printable(secret: str, name: str) -> str:
    """What can stand in a header. The text itself is in no message."""
    secret = secret.strip()
    if not (secret.isascii() and secret.isprintable()):
        raise usage(f"{name}: it has characters that no key or token has; copy it again")
    return secret


def api_address(given: str) -> str:
    """From an app's address, with or without /api/queue, to that of its admin API."""
    wrong = usage(f"the address must look like https://app.example, not {given!r}")
    try:
        parts = urlsplit(given.strip())
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise wrong from None
    if not is_address or parts.query or parts.fragment:
        raise wrong
    if parts.username is not None or parts.password is not None:
        raise usage(f"the address must not carry a name or password; put the key into {KEY}")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise usage(
            f"the address must begin with https://: over http anybody on the way to {parts.hostname} reads keys"
        )
    path = parts.path.rstrip("/").removesuffix("/queue").removesuffix("/api")
    return f"{parts.scheme}://{parts.netloc}{path}/api/queue"


def is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False
