"""Drives: items and folders of a user or a team, and their delta."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local.fake_graph import delta, query
from local.fake_graph.call import Answer, Call, Json, not_found, seconds_text, utc_now
from local.fake_graph.ids import new_etag

if TYPE_CHECKING:
    from local.fake_graph.state import World


@dataclass(slots=True)
class Drive:
    """A drive of one owner; `items` by id, the root among them."""

    id: str
    root: str
    items: dict[str, Json] = field(default_factory=dict)


class Drives:
    """Drives by owner: the id of a user or of a team."""

    def __init__(self) -> None:
        self._by_owner: dict[str, Drive] = {}

    def of(self, owner: str) -> Drive:
        """The owner's drive, made at the first look."""
        drive = self._by_owner.get(owner)
        if drive is None:
            number = hashlib.sha256(owner.encode()).hexdigest()
            drive = self._by_owner[owner] = Drive(f"b!{number[:40]}", f"01ROOT{number[:20].upper()}")
            drive.items[drive.root] = _new(
                drive, {"id": drive.root, "name": "root", "root": {}, "folder": {"childCount": 0}}
            )
            drive.items[drive.root]["parentReference"] = {"driveId": drive.id, "driveType": "business"}
        return drive

    def by_id(self, drive_id: str) -> Drive:
        for drive in self._by_owner.values():
            if drive.id == drive_id:
                return drive
        raise not_found("The resource could not be found.", "itemNotFound")

    def put(self, owner: str, item: Json) -> str:
        """Add an item, or change the properties that are given of the one with this id; `parent` names its folder."""
        drive = self.of(owner)
        item_id = str(item.get("id") or f"01{uuid.uuid4().hex.upper()}")
        known = drive.items.get(item_id) or _new(drive, {"id": item_id, "name": item_id})
        known = known | {name: value for name, value in item.items() if name != "parent"}
        if "parent" in item:
            known["parentReference"] = known["parentReference"] | {"id": item["parent"]}
        if "folder" in item:
            known.pop("file", None)
        drive.items[item_id] = known | {
            "id": item_id,
            "eTag": new_etag(),
            "lastModifiedDateTime": item.get("lastModifiedDateTime") or seconds_text(utc_now()),
        }
        return item_id

    def remove(self, owner: str, item_id: str) -> None:
        """With all that is in it; Graph then tells of the folder only."""
        drive = self.of(owner)
        if item_id not in drive.items or item_id == drive.root:
            raise not_found("The resource could not be found.", "itemNotFound")
        drive.items = {key: item for key, item in drive.items.items() if not _is_within(drive, item, item_id)}


def get_drive(world: World, call: Call) -> Answer:
    owner = call.params.get("user") or world.team(call.params["group"]).id
    drive = world.drives.of(world.user(owner).id if "user" in call.params else owner)
    body = {"id": drive.id, "driveType": "business", "name": "OneDrive"}
    context = f"{call.base_url}/v1.0/$metadata#drives/$entity"
    return Answer(200, {"@odata.context": context} | query.select(body, call.query.get("$select")))


def drive_delta(world: World, call: Call) -> Answer:
    drive = world.drives.by_id(call.params["drive"])
    options = delta.options_of(world.deltas, call)
    whole = delta.DeltaSet(
        {key: item["eTag"] for key, item in drive.items.items()},
        lambda key: query.select(_shown(drive.items[key], call.base_url), options.get("$select")),
        f"drives('{drive.id}')/root",
        lambda key: {"id": key, "parentReference": {"driveId": drive.id}, "deleted": {"state": "deleted"}},
        ("token", "token"),
    )
    return delta.page(world.deltas, call, whole, options, delta.page_size(call))


def _shown(item: Json, base_url: str) -> Json:
    """With a link that needs no token, as Graph gives one for files."""
    if "file" not in item:
        return item
    return item | {"@microsoft.graph.downloadUrl": f"{base_url}/download/{item['id']}?tempauth=secret"}


def _is_within(drive: Drive, item: Json | None, folder: str) -> bool:
    while item is not None:
        if item["id"] == folder:
            return True
        item = drive.items.get(item["parentReference"].get("id", ""))
    return False


def _new(drive: Drive, given: Json) -> Json:
    now = seconds_text(utc_now())
    return (
        {
            "createdDateTime": now,
            "lastModifiedDateTime": now,
            "eTag": new_etag(),
            "cTag": f'"c:{{{uuid.uuid4()}}},1"',
            "size": 0,
            "webUrl": f"https://files.example/{given['id']}",
            "createdBy": {"user": {"displayName": "Fleet Dispatch"}},
            "lastModifiedBy": {"user": {"displayName": "Fleet Dispatch"}},
            "parentReference": {"driveId": drive.id, "driveType": "business", "id": drive.root},
        }
        | ({"file": {"mimeType": "text/plain", "hashes": {"quickXorHash": "AAAA"}}} if "folder" not in given else {})
        | given
    )
