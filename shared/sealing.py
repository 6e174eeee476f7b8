"""AES-256-GCM with a ring of keys: what seals the token cache and the payloads of jobs.

Knows neither where keys come from nor what is sealed. Everything sealed is bound to a text (associated data) that
says what it is for, so that it does not open in the place of something else.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Sealed:
    """Nonce and ciphertext in one, and the name of the key that opens them."""

    key_id: str
    ciphertext: bytes


class CannotOpenError(Exception):
    """It was sealed for something else, or was changed, or (UnknownKeyError) its key is not here."""


class UnknownKeyError(CannotOpenError):
    """The key that sealed it is not in the ring; with that key it may open. `key_id`: which, None for any at all."""

    def __init__(self, message: str, key_id: str | None = None) -> None:
        super().__init__(message)
        self.key_id = key_id


class KeyRing:
    """Seals with the current key; opens with it or with an earlier one. Keys have 32 bytes.

    `own_key`: under a key derived for `bound_to` alone. Random nonces are good for 2^32 messages a key, which the
    payloads of a busy system reach in weeks; so each has its own.
    """

    def __init__(self, key: bytes, *previous: bytes) -> None:
        if any(len(k) != KEY_BYTES for k in (key, *previous)):
            raise ValueError(f"an encryption key must have {KEY_BYTES} bytes")
        self.current = key_id(key)
        self._keys: Mapping[str, bytes] = {key_id(k): k for k in (*previous, key)}

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def seal(self, bound_to: bytes, plaintext: bytes, *, own_key: bool = False) -> Sealed:
        nonce = os.urandom(NONCE_BYTES)
        cipher = _cipher(self._keys[self.current], bound_to, own_key)
        return Sealed(self.current, nonce + cipher.encrypt(nonce, plaintext, bound_to))

    def digests(self, text: str) -> list[bytes]:
        """What stands for a text where it may be looked for and not read: under each key, the current one first."""
        keys = (self._keys[self.current], *self._keys.values())
        label = b"fleet-queue name\0" + text.encode()
        return list(dict.fromkeys(hmac.digest(key, label, "sha256")[:DIGEST_BYTES] for key in keys))

    def open(self, bound_to: bytes, sealed: Sealed, *, own_key: bool = False) -> bytes:
        """The plaintext. Raises CannotOpenError, UnknownKeyError."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise UnknownKeyError(f"the key {sealed.key_id} is not among the settings", sealed.key_id)
        nonce, body = sealed.ciphertext[:NONCE_BYTES], sealed.ciphertext[NONCE_BYTES:]
        try:
            return _cipher(key, bound_to, own_key).decrypt(nonce, body, bound_to)
        except (InvalidTag, ValueError) as error:
            raise CannotOpenError("it was changed, or sealed for something else") from error


def key_id(key: bytes) -> str:
    """A short name of a key that gives nothing of it away."""
    return hashlib.sha256(b"fleet-queue token cache key" + key).hexdigest()[:12]


def _cipher(key: bytes, bound_to: bytes, own_key: bool) -> AESGCM:
    return AESGCM(hmac.digest(key, b"fleet-queue own key\0" + bound_to, "sha256") if own_key else key)
