"""Contacts: the default folder, those below it, and their deltas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local.fake_graph import delta, query
from local.fake_graph.call import Answer, Call, Json, not_found, seconds_text, utc_now
from local.fake_graph.ids import new_etag, new_outlook_id

if TYPE_CHECKING:
    from local.fake_graph.state import User, World

DEFAULT = "default"


@dataclass(slots=True)
class AddressBooks:
    """Contacts and folders by user and id. A contact's folder is its parentFolderId."""

    contacts: dict[str, dict[str, Json]] = field(default_factory=dict)
    folders: dict[str, dict[str, Json]] = field(default_factory=dict)

    def of(self, user: User) -> dict[str, Json]:
        return self.contacts.setdefault(user.id, {})

    def folders_of(self, user: User) -> dict[str, Json]:
        return self.folders.setdefault(user.id, {})

    def put(self, user: User, contact: Json) -> str:
        """Add a contact, or change the properties that are given of the one with this id."""
        contact_id = str(contact.get("id") or new_outlook_id("AAkALg"))
        self.of(user)[contact_id] = (
            self.of(user).get(contact_id, _new())
            | contact
            | {
                "id": contact_id,
                "@odata.etag": new_etag(),
                "lastModifiedDateTime": contact.get("lastModifiedDateTime") or seconds_text(utc_now()),
            }
        )
        return contact_id

    def remove(self, user: User, contact_id: str) -> None:
        if self.of(user).pop(contact_id, None) is None:
            raise not_found("The specified object was not found in the store.", "ErrorItemNotFound")

    def put_folder(self, user: User, name: str) -> str:
        folder_id = new_outlook_id("AQMkAD")
        self.folders_of(user)[folder_id] = {"id": folder_id, "displayName": name, "parentFolderId": DEFAULT}
        return folder_id

    def remove_folder(self, user: User, folder_id: str) -> None:
        """With the contacts in it."""
        del self.folders_of(user)[folder_id]
        kept = {key: contact for key, contact in self.of(user).items() if contact["parentFolderId"] != folder_id}
        self.contacts[user.id] = kept


def contacts_delta(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    folder = call.params.get("folder", DEFAULT)
    if folder != DEFAULT and folder not in world.address_books.folders_of(user):
        raise not_found("The specified folder could not be found in the store.", "ErrorItemNotFound")
    contacts = world.address_books.of(user)
    options = delta.options_of(world.deltas, call)
    whole = delta.DeltaSet(
        {key: one["@odata.etag"] for key, one in contacts.items() if one["parentFolderId"] == folder},
        lambda key: query.select(contacts[key], options.get("$select")),
        f"users('{user.id}')/contacts",
    )
    return delta.page(world.deltas, call, whole, options, delta.page_size(call))


def contact_folders_delta(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    folders = world.address_books.folders_of(user)
    options = delta.options_of(world.deltas, call)
    whole = delta.DeltaSet(
        {key: folder["displayName"] for key, folder in folders.items()},
        lambda key: query.select(folders[key], options.get("$select")),
        f"users('{user.id}')/contactFolders",
    )
    return delta.page(world.deltas, call, whole, options, delta.page_size(call))


def _new() -> Json:
    return {
        "createdDateTime": seconds_text(utc_now()),
        "categories": [],
        "parentFolderId": DEFAULT,
        "fileAs": "",
        "displayName": "",
        "givenName": None,
        "surname": None,
        "companyName": None,
        "jobTitle": None,
        "department": None,
        "emailAddresses": [],
        "mobilePhone": None,
        "businessPhones": [],
        "homePhones": [],
        "personalNotes": "",
    }
