"""How payloads stand in rows: plain, compressed when they are large, or sealed and bound to what they belong to.

{"chatId": "19:…", …}                                     plain
{"$zip": "<base64>"}                                       the JSON in zlib
{"key": "<key id>", "$sealed": "<base64>"}                 the JSON in AES-256-GCM: nonce, then ciphertext
{"key": "<key id>", "zip": true, "$sealed": "<base64>"}    the JSON in zlib in AES-256-GCM
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

from shared.engine.enqueue import LARGEST_PAYLOAD_BYTES, SEALED_FIELD, ZIP_FIELD
from shared.engine.errors import StoreUnavailableError
from shared.engine.ids import new_id
from shared.engine.job import NewJob, Unreadable
from shared.engine.json_text import to_json
from shared.sealing import CannotOpenError, KeyRing, Sealed, UnknownKeyError

#: JSON of more bytes is compressed; docs/reference/figures.md has what it saves and costs.
ZIP_ABOVE_BYTES = 256 * 1024
#: PostgreSQL compresses rows itself, but not ciphertext: here it pays much earlier.
ZIP_SEALED_ABOVE_BYTES = 1024
#: Higher levels took up to seven times as long for a few percent.
ZIP_LEVEL = 1
#: jsonb gives JSON back with blanks in it, so what was plain may seal to more than was let in.
LARGEST_OPENED_BYTES = 2 * LARGEST_PAYLOAD_BYTES
_MARKS = (f'"{SEALED_FIELD}"', f'"{ZIP_FIELD}"')
_KNOWN = {SEALED_FIELD, "key", "zip"}


def of_job(queue: str, effect_id: UUID) -> bytes:
    """What a job's payload is bound to. The effect id, so that a redrive in SQL may copy it."""
    return f"job\0{queue}\0{effect_id}".encode()


def of_schedule(name: str) -> bytes:
    return f"schedule\0{name}".encode()


class Sealer:
    """Seals the payloads of `queues`; the others stay plain. `ring` is asked for when it is needed, and may raise
    UnknownKeyError when the settings hold no key."""

    def __init__(self, queues: Collection[str] = (), ring: Callable[[], KeyRing] | None = None) -> None:
        self.queues = frozenset(queues)
        self._ring = ring

    @property
    def current_key(self) -> str:
        """The id of the key that seals. Raises UnknownKeyError."""
        return self._keys().current

    def new_row(self, job: NewJob) -> dict[str, Any]:
        """The payload of a new job's row, and its id where the payload is bound to one."""
        if job.queue not in self.queues:
            return {"payload": _zipped_if_large(job.payload)}
        job_id = new_id()
        bound_to = of_job(job.queue, job.redrive_of or job_id)
        return {"id": str(job_id), "payload": self.seal_text(bound_to, to_json(job.payload))}

    def seal(self, queue: str, bound_to: bytes, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload as it is stored. Raises StoreUnavailableError when it cannot be sealed."""
        if queue in self.queues:
            return self.seal_text(bound_to, to_json(payload))
        return _zipped_if_large(payload)

    def seal_text(self, bound_to: bytes, text: str) -> dict[str, Any]:
        plain = text.encode()
        packed = zlib.compress(plain, ZIP_LEVEL) if len(plain) > ZIP_SEALED_ABOVE_BYTES else plain
        is_zip = len(packed) < len(plain)
        try:
            sealed = self._keys().seal(_bound(bound_to, is_zip), packed if is_zip else plain, own_key=True)
        except UnknownKeyError as error:
            raise StoreUnavailableError(f"the payload cannot be sealed: {error}") from error
        head: dict[str, Any] = {"key": sealed.key_id} | ({"zip": True} if is_zip else {})
        return head | {SEALED_FIELD: base64.b64encode(sealed.ciphertext).decode()}

    def open_text(self, bound_to: bytes, text: str) -> str | Unreadable:
        """The payload's JSON from that of its row, or why it cannot be read."""
        if not any(mark in text for mark in _MARKS):
            return text
        value = json.loads(text)
        return self._open(bound_to, value) if _is_envelope(value) else text

    def open(self, bound_to: bytes, value: dict[str, Any]) -> dict[str, Any] | Unreadable:
        if not _is_envelope(value):
            return value
        opened = self._open(bound_to, value)
        if isinstance(opened, Unreadable):
            return opened
        payload: dict[str, Any] = json.loads(opened)
        return payload

    def show(self, bound_to: bytes, value: dict[str, Any]) -> dict[str, Any]:
        """The payload for a person to read; what cannot be opened is shown as it is, with the problem."""
        opened = self.open(bound_to, value)
        return value | {"problem": opened.reason} if isinstance(opened, Unreadable) else opened

    def _open(self, bound_to: bytes, value: dict[str, Any]) -> str | Unreadable:
        try:
            if set(value) == {ZIP_FIELD}:
                return _checked(_inflated(_decoded(value[ZIP_FIELD])))
            is_zip = value.get("zip", False)
            if set(value) - _KNOWN or not isinstance(value.get("key"), str) or not isinstance(is_zip, bool):
                return Unreadable("the envelope of the payload is broken: its fields are wrong")
            sealed = Sealed(value["key"], _decoded(value[SEALED_FIELD]))
            opened = self._keys().open(_bound(bound_to, is_zip), sealed, own_key=True)
            return _checked(_inflated(opened) if is_zip else opened)
        except UnknownKeyError as error:
            return Unreadable(f"the payload is sealed, and {error}", key_id=error.key_id or value["key"])
        except CannotOpenError as error:
            return Unreadable(f"the sealed payload does not open: {error}")
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            return Unreadable(f"the envelope of the payload is broken: {error}")

    def _keys(self) -> KeyRing:
        if self._ring is None:
            raise UnknownKeyError("there are no keys")
        return self._ring()


def _bound(bound_to: bytes, is_zip: bool) -> bytes:
    return bound_to + b"\0zip" if is_zip else bound_to


def _is_envelope(value: Any) -> bool:
    return isinstance(value, dict) and (SEALED_FIELD in value or ZIP_FIELD in value)


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("it holds no text")
    return base64.b64decode(value, validate=True)


def _inflated(data: bytes) -> bytes:
    """Never more than a payload may have, whatever the data says."""
    inflater = zlib.decompressobj()
    plain = inflater.decompress(data, LARGEST_OPENED_BYTES)
    if not inflater.eof or inflater.unused_data:
        raise ValueError(f"it does not end, or is larger than {LARGEST_OPENED_BYTES:,} bytes")
    return plain


def _checked(plain: bytes) -> str:
    text = plain.decode()
    if not text.startswith("{"):
        raise ValueError("it is no JSON object")
    return text


def _zipped_if_large(payload: dict[str, Any]) -> dict[str, Any]:
    if _rough_size(payload) * 6 <= ZIP_ABOVE_BYTES:
        return payload
    plain = to_json(payload).encode()
    if len(plain) <= ZIP_ABOVE_BYTES:
        return payload
    packed = base64.b64encode(zlib.compress(plain, ZIP_LEVEL)).decode()
    return {ZIP_FIELD: packed} if len(packed) < len(plain) else payload


def _rough_size(value: Any) -> int:
    """At least a sixth of the bytes of its JSON: a tenth of what making the JSON takes."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, dict):
        return sum(len(str(name)) + 2 + _rough_size(item) for name, item in value.items()) + 2
    if isinstance(value, list | tuple):
        return sum(map(_rough_size, value)) + 2
    return 5
