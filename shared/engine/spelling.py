"""Names that nobody knows, with those that were probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_field(name: str, known: Iterable[str]) -> str:
    """What a refusal says of a field that there is none of."""
    meant = _meant(name, known)
    return f"this field is not known: {meant or 'remove it.'} Known: {_list(known)}"


def unknown_queue(name: str, known: Iterable[str]) -> str:
    meant = _meant(name, known)
    return f'queue "{name[:80]}" does not exist{f": {meant}" if meant else ""}; the queues are: {_list(known)}'


def _meant(name: str, known: Iterable[str]) -> str:
    """Compared without upper case and dashes, so that run_at is runAt."""
    plain = {_plain(one): one for one in known}
    close = get_close_matches(_plain(name[:80]), plain, n=1, cutoff=0.6)
    return f"did you mean {plain[close[0]]}?" if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _list(known: Iterable[str]) -> str:
    return ", ".join(sorted(known))
