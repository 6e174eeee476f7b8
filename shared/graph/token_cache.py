"""Keeps the delegated account's token cache: sealed with AES-256-GCM, behind a port."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted cache: nonce and ciphertext in one, and the name of the key that opens it."""

    key_id: str
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class StoredCache:
    """A sealed cache as stored; `version` rises with each save."""

    sealed: Sealed
    version: int


class TokenCacheStore(Protocol):
    """Where the sealed caches are kept, one for each account."""

    def load(self, account: str) -> StoredCache | None: ...

    def save(self, account: str, sealed: Sealed, expected_version: int | None) -> bool:
        """Store if the version is still the expected one (None: nothing stored yet); False when it is not."""
        ...


class CannotOpenError(Exception):
    """The cache was sealed with a key that we do not have, or for another account, or was changed."""


class CacheCipher:
    """Seals with the current key; opens with it or with an earlier one. Keys have 32 bytes."""

    def __init__(self, key: bytes, *previous: bytes) -> None:
        if any(len(k) != 32 for k in (key, *previous)):
            raise ValueError("an encryption key must have 32 bytes")
        self._current = key_id(key)
        self._keys: Mapping[str, AESGCM] = {key_id(k): AESGCM(k) for k in (key, *previous)}

    def seal(self, account: str, plaintext: bytes) -> Sealed:
        nonce = os.urandom(NONCE_BYTES)
        body = self._keys[self._current].encrypt(nonce, plaintext, _bound_to(account))
        return Sealed(self._current, nonce + body)

    def open(self, account: str, sealed: Sealed) -> bytes:
        """The plaintext. Raises CannotOpenError."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise CannotOpenError(f"the key {sealed.key_id} is not among the settings")
        try:
            return key.decrypt(sealed.ciphertext[:NONCE_BYTES], sealed.ciphertext[NONCE_BYTES:], _bound_to(account))
        except (InvalidTag, ValueError) as error:
            raise CannotOpenError("the stored cache does not open") from error


def key_id(key: bytes) -> str:
    """A short name of a key that gives nothing of it away."""
    return hashlib.sha256(b"fleet-queue token cache key" + key).hexdigest()[:12]


def _bound_to(account: str) -> bytes:
    return account.lower().encode()
