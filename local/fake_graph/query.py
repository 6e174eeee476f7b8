"""OData's query options on lists that the fake keeps: $filter, $orderby, $select, $top, $skip, $count."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from local.fake_graph.call import Call, Json, bad_request

#: The option of Graph's next links; its value is opaque to clients, and allowed wherever there are pages.
SKIP_TOKEN = "$skiptoken"
_TOKEN_PREFIX = "local-"
Predicate = Callable[[Json], bool]

_EXTENDED = re.compile(
    r"^singleValueExtendedProperties/any\(\s*(?P<v>\w+)\s*:\s*(?P=v)/id\s+eq\s+'(?P<id>(?:[^']|'')*)'"
    r"\s+and\s+(?P=v)/value\s+(?P<op>eq|ne)\s+'(?P<value>(?:[^']|'')*)'\s*\)",
    re.IGNORECASE,
)
_COMPARISON = re.compile(
    r"^(?P<path>[A-Za-z]\w*(?:/\w+)*)\s+(?P<op>eq|ne|gt|ge|lt|le)\s+(?P<value>'(?:[^']|'')*'|[^\s()]+)"
)
_AND = re.compile(r"^\s+and\s+", re.IGNORECASE)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
}


def parse_filter(text: str) -> Predicate:
    """Conditions joined by `and`: comparisons, and Any() on extended properties. 400 for anything else."""
    predicates: list[Predicate] = []
    rest = text.strip()
    while True:
        if match := _EXTENDED.match(rest):
            predicates.append(_extended(match))
        elif match := _COMPARISON.match(rest):
            predicates.append(_comparison(match))
        else:
            raise bad_request(f"Invalid filter clause: {text}", "ErrorInvalidUrlQueryFilter")
        rest = rest[match.end() :]
        if not rest.strip():
            return lambda item: all(predicate(item) for predicate in predicates)
        joint = _AND.match(rest)
        if joint is None:
            raise bad_request(f"Invalid filter clause: {text}", "ErrorInvalidUrlQueryFilter")
        rest = rest[joint.end() :]


def _extended(match: re.Match[str]) -> Predicate:
    name, value = _unquoted(match["id"]), _unquoted(match["value"])
    equal = match["op"].lower() == "eq"

    def holds(item: Json) -> bool:
        # Exchange compares the name exactly, braces of the GUID and its case apart, and the value without case.
        values = [
            prop["value"] for prop in item.get("singleValueExtendedProperties", []) if _same_property(prop["id"], name)
        ]
        found = any(str(known).lower() == value.lower() for known in values)
        return found if equal else bool(values) and not found

    return holds


def _same_property(known: str, asked: str) -> bool:
    left, right = known.split(" ", 3), asked.split(" ", 3)
    return (
        len(left) == len(right) == 4
        and left[3] == right[3]
        and [part.lower() for part in left[:3]] == [part.lower() for part in right[:3]]
    )


def _comparison(match: re.Match[str]) -> Predicate:
    path, operator, wanted = match["path"].split("/"), match["op"].lower(), _literal(match["value"])

    def holds(item: Json) -> bool:
        value: Any = item
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(wanted, datetime):
            value = None if value is None else datetime.fromisoformat(value)
        if isinstance(value, str) and isinstance(wanted, str):
            return _OPERATORS[operator](value.lower(), wanted.lower())
        if value is None or wanted is None:
            return operator == ("eq" if value is wanted else "ne")
        return _OPERATORS[operator](value, wanted)

    return holds


def _literal(text: str) -> str | bool | datetime | float | None:
    if text.startswith("'"):
        return _unquoted(text[1:-1])
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "null":
        return None
    with suppress(ValueError):
        return float(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f"Invalid filter clause: unknown literal {text}", "BadRequest") from None


def _unquoted(text: str) -> str:
    return text.replace("''", "'")


def number(call: Call, option: str, default: int, lowest: int, highest: int) -> int:
    """A numeric option within its bounds, or 400."""
    text = call.query.get(option)
    if text is None:
        return default
    if not text.isdigit() or not lowest <= int(text) <= highest:
        raise bad_request(f"Invalid value '{text}' for {option} query option. The value must be {lowest}..{highest}.")
    return int(text)


def order(items: list[Json], text: str, allowed: set[str]) -> list[Json]:
    """Sort by a list of `property asc|desc`; 400 for a property that cannot be sorted by."""
    result = list(items)
    for clause in reversed(text.split(",")):
        name, _, direction = clause.strip().partition(" ")
        if name not in allowed or direction.strip().lower() not in ("", "asc", "desc"):
            raise bad_request(f"The query specified in the URI is not valid: $orderby={text}")
        result.sort(
            key=lambda item, key=name: str(item.get(key) or ""),  # type: ignore[misc]
            reverse=direction.strip().lower() == "desc",
        )
    return result


def select(item: Json, names: str | None) -> Json:
    """Only the named properties, with the id and annotations, as Graph does.

    A property of a subtype is named with its type, microsoft.graph.fileAttachment/contentId.
    """
    if not names:
        return item
    kind = str(item.get("@odata.type", "")).lstrip("#").lower()
    paths = [name.strip().rpartition("/") for name in names.split(",")]
    wanted = {name for cast, _, name in paths if cast.lower() in ("", kind)}
    return {key: value for key, value in item.items() if key in wanted or key == "id" or key.startswith("@")}


def page(call: Call, items: list[Json], top: int, context: str) -> Json:
    """A page of the list from $skip or $skiptoken on, with @odata.nextLink when there is more."""
    skip = _start(call)
    body: Json = {"@odata.context": f"{call.base_url}/v1.0/$metadata#{context}"}
    if call.query.get("$count", "").lower() == "true":
        body["@odata.count"] = len(items)
    if len(items) > skip + top:
        kept = {name: value for name, value in call.query.items() if name not in ("$skip", SKIP_TOKEN)}
        query = urlencode(kept | {SKIP_TOKEN: f"{_TOKEN_PREFIX}{skip + top}"}, quote_via=quote, safe="$")
        body["@odata.nextLink"] = f"{call.base_url}{call.path}?{query}"
    body["value"] = items[skip : skip + top]
    return body


def _start(call: Call) -> int:
    token = call.query.get(SKIP_TOKEN)
    if token is None:
        return number(call, "$skip", 0, 0, 1_000_000)
    if not token.removeprefix(_TOKEN_PREFIX).isdigit():
        raise bad_request(f"The skip token '{token}' is none of ours.")
    return int(token.removeprefix(_TOKEN_PREFIX))
