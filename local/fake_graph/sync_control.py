"""Control calls for what is kept in step: events, contacts, drive items, mail folders, and how deltas behave."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from local.fake_graph import item_changes
from local.fake_graph.call import Json
from local.fake_graph.delta import Behaviour, Expiry

if TYPE_CHECKING:
    from local.fake_graph.app import FakeGraphApp

Route = tuple[str, str, Callable[..., Any]]


def routes(app: FakeGraphApp) -> tuple[Route, ...]:
    """Method, path and handler of each."""
    control = SyncControl(app)
    return (
        ("POST", "events", control.put_event),
        ("POST", "events/delete", control.delete_event),
        ("GET", "events/(?P<user>.+)", control.events),
        ("POST", "contacts", control.put_contact),
        ("POST", "contacts/delete", control.delete_contact),
        ("POST", "contact-folders", control.put_contact_folder),
        ("POST", "contact-folders/delete", control.delete_contact_folder),
        ("GET", "contacts/(?P<user>.+)", control.contacts),
        ("POST", "drive-items", control.put_drive_item),
        ("POST", "drive-items/delete", control.delete_drive_item),
        ("GET", "drive-items/(?P<owner>.+)", control.drive_items),
        ("POST", "mail-folders", control.put_mail_folder),
        ("POST", "mail-folders/delete", control.delete_mail_folder),
        ("POST", "mails/change", control.change_mail),
        ("POST", "delta", control.behave),
        ("POST", "delta/expire", control.expire),
    )


class SyncControl:
    """The handlers of these calls."""

    def __init__(self, app: FakeGraphApp) -> None:
        self._app = app

    def put_event(self, body: Json) -> Json:
        return {"id": item_changes.put_event(self._app.world, self._app.world.user(body["user"]), body["event"])}

    def delete_event(self, body: Json) -> Json:
        item_changes.remove_event(self._app.world, self._app.world.user(body["user"]), body["id"])
        return {}

    def events(self, _: Json, user: str) -> list[Json]:
        return list(self._app.world.calendars.of(self._app.world.user(user)).values())

    def put_contact(self, body: Json) -> Json:
        return {"id": item_changes.put_contact(self._app.world, self._app.world.user(body["user"]), body["contact"])}

    def delete_contact(self, body: Json) -> Json:
        item_changes.remove_contact(self._app.world, self._app.world.user(body["user"]), body["id"])
        return {}

    def put_contact_folder(self, body: Json) -> Json:
        return {"id": self._app.world.address_books.put_folder(self._app.world.user(body["user"]), body["name"])}

    def delete_contact_folder(self, body: Json) -> Json:
        item_changes.remove_contact_folder(self._app.world, self._app.world.user(body["user"]), body["id"])
        return {}

    def contacts(self, _: Json, user: str) -> list[Json]:
        return list(self._app.world.address_books.of(self._app.world.user(user)).values())

    def put_drive_item(self, body: Json) -> Json:
        return {"id": item_changes.put_drive_item(self._app.world, self._owner(body["owner"]), body["item"])}

    def delete_drive_item(self, body: Json) -> Json:
        item_changes.remove_drive_item(self._app.world, self._owner(body["owner"]), body["id"])
        return {}

    def drive_items(self, _: Json, owner: str) -> list[Json]:
        return list(self._app.world.drives.of(self._owner(owner)).items.values())

    def put_mail_folder(self, body: Json) -> Json:
        user = self._app.world.user(body["user"])
        user.own_folders[body["key"]] = body["name"]
        return {"id": user.folder_id(body["key"])}

    def delete_mail_folder(self, body: Json) -> Json:
        """With the mails in it."""
        user = self._app.world.user(body["user"])
        del user.own_folders[body["key"]]
        user.mails = {key: one for key, one in user.mails.items() if one.folder != body["key"]}
        return {}

    def change_mail(self, body: Json) -> Json:
        """Change properties of a mail as no client can: `value`; `newId`: the mail comes back under another id."""
        user = self._app.world.user(body["user"])
        found = user.mail(body["id"])
        if body.get("newId"):
            del user.mails[found.immutable_id]
            found.immutable_id = body["newId"]
            user.mails[found.immutable_id] = found
        if body.get("folder"):
            found.move(body["folder"])
        found.value |= body.get("value", {})
        return {"id": found.immutable_id}

    def behave(self, body: Json) -> Json:
        self._app.world.deltas.behaviour = Behaviour(**body)
        return {}

    def expire(self, body: Json) -> Json:
        return {"expired": self._app.world.deltas.expire(Expiry(**body))}

    def _owner(self, name: str) -> str:
        """A user's id by either name of his, or a team's."""
        user = self._app.world.find_user(name)
        return user.id if user is not None else self._app.world.team(name).id
