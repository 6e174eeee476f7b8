"""Changes of what is kept in step (events, contacts, items of drives), each told to the subscriptions as Graph does.

A contact is told to the subscriptions of its user's contacts whatever folder it is in. Single occurrences of a series
are told by their series. Of a drive Graph says that something in it was updated, and not what.
"""

from __future__ import annotations

from typing import Literal

from local.fake_graph.call import Json
from local.fake_graph.drive import Drive
from local.fake_graph.state import Change, User, World

Kind = Literal["Events", "Contacts"]


def put_event(world: World, user: User, event: Json) -> str:
    """Add an event or change the one with this id; its id."""
    is_known = event.get("id") in world.calendars.of(user)
    event_id = world.calendars.put(user, event)
    _tell_of_item(world, user, "Events", world.calendars.of(user)[event_id], "updated" if is_known else "created")
    return event_id


def remove_event(world: World, user: User, event_id: str) -> None:
    event = world.calendars.of(user).get(event_id, {})
    world.calendars.remove(user, event_id)
    _tell_of_item(world, user, "Events", event, "deleted")


def put_contact(world: World, user: User, contact: Json) -> str:
    """The same for a contact."""
    is_known = contact.get("id") in world.address_books.of(user)
    contact_id = world.address_books.put(user, contact)
    found = world.address_books.of(user)[contact_id]
    _tell_of_item(world, user, "Contacts", found, "updated" if is_known else "created")
    return contact_id


def remove_contact(world: World, user: User, contact_id: str) -> None:
    contact = world.address_books.of(user).get(contact_id, {})
    world.address_books.remove(user, contact_id)
    _tell_of_item(world, user, "Contacts", contact, "deleted")


def remove_contact_folder(world: World, user: User, folder_id: str) -> None:
    """With the contacts in it."""
    before = dict(world.address_books.of(user))
    world.address_books.remove_folder(user, folder_id)
    for contact_id in before.keys() - world.address_books.of(user).keys():
        _tell_of_item(world, user, "Contacts", before[contact_id], "deleted")


def put_drive_item(world: World, owner: str, item: Json) -> str:
    """The same for an item of a user's or team's drive; `owner` is its id."""
    item_id = world.drives.put(owner, item)
    _tell_of_drive(world, owner, world.drives.of(owner))
    return item_id


def remove_drive_item(world: World, owner: str, item_id: str) -> None:
    """With all that is in it."""
    world.drives.remove(owner, item_id)
    _tell_of_drive(world, owner, world.drives.of(owner))


def _tell_of_item(world: World, user: User, kind: Kind, item: Json, change_type: str) -> None:
    if item.get("type") == "occurrence":
        return
    named = (f"Users/{user.id}/{kind}/{item['id']}", item["id"])
    world.publish(
        Change(
            change_type, frozenset({f"users/{user.id}/{kind}".lower()}), f"#Microsoft.Graph.{kind[:-1]}",
            named, named, item["@odata.etag"], {name: value for name, value in item.items() if name != "id"},
        )
    )  # fmt: skip


def _tell_of_drive(world: World, owner: str, drive: Drive) -> None:
    scopes = frozenset({f"users/{owner}/drive/root".lower(), f"drives/{drive.id}/root".lower()})
    world.publish(Change("updated", scopes, "#Microsoft.Graph.DriveItem", None, None))
