"""What to enqueue anew of a mail that reached some of its recipients only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.admin.diagnosis.circumstances import Row

PEOPLE = ("to", "cc", "bcc")


def for_those_without_it(payload: Mapping[str, Any], failures: Sequence[Row]) -> dict[str, Any]:
    """The payload for those whom it did not reach, where they stood; they come first. An address that does not exist
    is a text that an enqueue refuses, until somebody corrects it."""
    statuses: dict[str, list[str]] = {}
    for one in failures:
        if one["recipient"] is None:
            continue
        statuses.setdefault(str(one["recipient"]).lower(), []).append(str(one["status"]))
    anew: dict[str, Any] = {}
    found = set()
    for name in PEOPLE:
        kept = [one for one in payload.get(name) or () if _address(one).lower() in statuses]
        found |= {_address(one).lower() for one in kept}
        if kept:
            anew[name] = [_corrected(one, statuses) for one in kept]
    # Who is behind a list or another name of the same person stands in no field.
    others = [_corrected(one, statuses) for one in statuses if one not in found]
    if others:
        anew["to"] = [*anew.get("to", ()), *others]
    anew |= {name: value for name, value in payload.items() if name not in PEOPLE}
    if isinstance(anew.get("original"), dict):
        # A reply would go to those who have it, too.
        anew["original"] = anew["original"] | {"action": "forward"}
    return anew


def _address(recipient: Any) -> str:
    return str(recipient.get("address") if isinstance(recipient, dict) else recipient)


def _corrected(recipient: Any, statuses: Mapping[str, list[str]]) -> Any:
    address = _address(recipient)
    if any(status.startswith("5.1.") for status in statuses[address.lower()]):
        address = f"CORRECT-ADDRESS of {address}"
    return recipient | {"address": address} if isinstance(recipient, dict) else address
