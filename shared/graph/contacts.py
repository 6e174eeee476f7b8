"""Contacts: the default folder and those below it, and what of a contact becomes a column."""

from __future__ import annotations

from typing import Any

from shared.graph.client import IMMUTABLE_IDS
from shared.graph.columns import Columns, instant, read, stored, text, texts
from shared.graph.delta import DeltaQuery

PAGE = 200
_PREFER = (IMMUTABLE_IDS, f"odata.maxpagesize={PAGE}")


def _addresses(value: Any) -> list[str] | None:
    if not isinstance(value, list):
        return None
    found = [text(part.get("address")) for part in value if isinstance(part, dict)]
    return [address for address in found if address]


COLUMNS: Columns = {
    "folder_id": ("parentFolderId", text),
    "display_name": ("displayName", text),
    "given_name": ("givenName", text),
    "surname": ("surname", text),
    "company_name": ("companyName", text),
    "job_title": ("jobTitle", text),
    "department": ("department", text),
    "email_addresses": ("emailAddresses", _addresses),
    "mobile_phone": ("mobilePhone", text),
    "business_phones": ("businessPhones", texts),
    "home_phones": ("homePhones", texts),
    "categories": ("categories", texts),
    "notes": ("personalNotes", text),
    "etag": ("@odata.etag", text),
    "modified_at": ("lastModifiedDateTime", instant),
}


def folders_query(user: str) -> DeltaQuery:
    """The contact folders below the default one."""
    return DeltaQuery("/users/{user}/contactFolders/delta", {"user": user}, {}, _PREFER)


def query(user: str, folder: str | None) -> DeltaQuery:
    """The contacts of a folder; None is the default one."""
    if folder is None:
        return DeltaQuery("/users/{user}/contacts/delta", {"user": user}, {}, _PREFER)
    segments = {"user": user, "folder": folder}
    return DeltaQuery("/users/{user}/contactFolders/{folder}/contacts/delta", segments, {}, _PREFER)


def columns(item: dict[str, Any]) -> dict[str, Any]:
    """The columns of `contacts` that a contact, or a part of one, tells."""
    return read(item, COLUMNS) | {"raw": stored(item)}
