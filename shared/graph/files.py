"""Drives: which one is somebody's, and what of an item in it becomes a column."""

from __future__ import annotations

from typing import Any

from shared.graph.columns import Columns, inner, instant, read, stored, text, there, whole
from shared.graph.delta import DeltaQuery

PAGE = 200


def _hash(name: str) -> tuple[str, Any]:
    return ("file", inner("hashes", name))


COLUMNS: Columns = {
    "drive_id": ("parentReference", inner("driveId")),
    "parent_id": ("parentReference", inner("id")),
    "name": ("name", text),
    "size_bytes": ("size", whole),
    "mime_type": ("file", inner("mimeType")),
    "quick_xor_hash": _hash("quickXorHash"),
    "sha1_hash": _hash("sha1Hash"),
    "sha256_hash": _hash("sha256Hash"),
    "web_url": ("webUrl", text),
    "created_by": ("createdBy", inner("user", "displayName")),
    "modified_by": ("lastModifiedBy", inner("user", "displayName")),
    "etag": ("eTag", text),
    "ctag": ("cTag", text),
    "modified_at": ("lastModifiedDateTime", instant),
}


def query(drive: str) -> DeltaQuery:
    """Everything in a drive, from its root on."""
    return DeltaQuery("/drives/{drive}/root/delta", {"drive": drive}, {"$top": str(PAGE)})


def columns(item: dict[str, Any]) -> dict[str, Any]:
    """The columns of `files` that an item of a drive tells. It comes whole: a facet that is not there is none."""
    found = read(item, COLUMNS)
    return found | {
        "is_folder": there(item.get("folder")) or there(item.get("root")),
        "is_malware": there(item.get("malware")),
        "raw": stored(item),
    }
