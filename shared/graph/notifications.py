"""Graph's change notifications: who may send them (clientState), and how they travel on.

A clientState is `nonce.mac`: the mac is the HMAC-SHA256 of the nonce under the app's secret, both in URL-safe
base64 without padding. So no table is needed to know our own, and each subscription has one of its own.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SHORTEST_SECRET_BYTES = 32
#: What Graph keeps of a clientState.
LONGEST_CLIENT_STATE = 128
NONCE_BYTES = 16
#: Well below the Storage Queue's 64 KiB, so that an envelope or an escape never tips it over.
LARGEST_MESSAGE_BYTES = 48 * 1024
#: A delivery has one token of about 2 KB for each app and tenant, which for us is one.
LARGEST_TOKENS_BYTES = 12 * 1024

_PURPOSE = b"fleet-queue client state\0"
_ID_PURPOSE = b"fleet-queue secret id\0"
#: These would grow in the XML of a put; as JSON escapes a text has its final size.
_ESCAPES = (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e"))


class WeakSecretError(ValueError):
    """A secret that is missing or too short protects nothing."""


class ClientStates:
    """Makes clientStates with the first secret, and accepts those of any; the second is valid during a rotation."""

    def __init__(self, *keys: bytes) -> None:
        if not keys or any(len(key) < SHORTEST_SECRET_BYTES for key in keys):
            raise WeakSecretError(f"a webhook secret needs at least {SHORTEST_SECRET_BYTES} bytes")
        self._keys = keys

    @property
    def ids(self) -> list[str]:
        """A name of each secret, the current one first; it tells nothing about the secret."""
        return [hmac.digest(key, _ID_PURPOSE, "sha256").hex()[:16] for key in self._keys]

    def new(self) -> str:
        """A clientState for one subscription."""
        nonce = _text(secrets.token_bytes(NONCE_BYTES))
        return f"{nonce}.{_mac(self._keys[0], nonce.encode())}"

    def is_ours(self, client_state: Any) -> bool:
        """Whether one of our secrets made it; anything may be asked, in constant time."""
        if not isinstance(client_state, str) or len(client_state) > LONGEST_CLIENT_STATE:
            return False
        nonce, _, mac = client_state.encode("utf-8", "surrogatepass").partition(b".")
        if not nonce:
            return False
        return any(hmac.compare_digest(_mac(key, nonce).encode(), mac) for key in self._keys)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What Graph posts: items, and the tokens that vouch for the resource data in them."""

    items: list[Any]
    tokens: list[str]


def read_delivery(body: bytes) -> Delivery:
    """A delivery's parts. Raises ValueError: not UTF-8 (a BOM may be there), not JSON, or not Graph's form."""
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("the body is nested too deeply") from error
    items = document.get("value") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ValueError('the body must be an object with a list in "value"')
    tokens = document.get("validationTokens") or []
    if not isinstance(tokens, list) or not all(token is None or isinstance(token, str) for token in tokens):
        raise ValueError('"validationTokens" must be a list of texts')
    return Delivery(items, [token for token in tokens if token])


def item_text(item: dict[str, Any], room: int = LARGEST_MESSAGE_BYTES) -> str | None:
    """An item as ASCII JSON without its secret; without encryptedContent too when it has no room (bytes) else.

    None when it cannot be made: it is too large all the same, or a number in it is none.
    """
    kept = {name: value for name, value in item.items() if name != "clientState"}
    text = _ascii(kept)
    if text is not None and len(text) > room:
        kept.pop("encryptedContent", None)
        text = _ascii(kept)
    return text if text is not None and len(text) <= room else None


def pack(
    items: Sequence[dict[str, Any]], received_at: str, tokens: Sequence[str] = (), traceparent: str | None = None
) -> tuple[list[str], int]:
    """Messages for the `webhooks` queue, as few as fit, in order; and how many items could not be packed.

    A message is {"notifications": [item…], "receivedAt": …, "traceparent"?, "validationTokens": […]} in ASCII, at most
    LARGEST_MESSAGE_BYTES long. Every message carries the tokens of its delivery. Tokens that would take too much of
    it are left out, and with them all encryptedContent: what nobody vouches for is fetched instead.
    """
    vouchers = _ascii(list(tokens)) or ""
    if len(vouchers) > LARGEST_TOKENS_BYTES:
        items = [{name: value for name, value in item.items() if name != "encryptedContent"} for item in items]
        tokens = ()
    head, tail = '{"notifications":[', f'],"receivedAt":{json.dumps(received_at)}'
    tail += f',"traceparent":{json.dumps(traceparent)}' if traceparent else ""
    tail += f',"validationTokens":{vouchers}}}' if tokens else "}"
    room = LARGEST_MESSAGE_BYTES - len(head) - len(tail)
    texts = [text for item in items if (text := item_text(item, room)) is not None]
    messages = [head + ",".join(group) + tail for group in _groups(texts, room)]
    return messages, len(items) - len(texts)


def _groups(texts: Iterable[str], room: int) -> list[list[str]]:
    groups: list[list[str]] = []
    left = -1
    for text in texts:
        left -= len(text) + 1
        if left < 0:
            groups.append([])
            left = room - len(text)
        groups[-1].append(text)
    return groups


def _ascii(value: Any) -> str | None:
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None
    for character, escape in _ESCAPES:
        text = text.replace(character, escape)
    return text


def _mac(key: bytes, nonce: bytes) -> str:
    return _text(hmac.digest(key, _PURPOSE + nonce, "sha256"))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
