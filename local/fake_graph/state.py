"""The state of the fake Graph: one tenant's people, mailboxes, chats, teams and subscriptions, in memory."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local.fake_graph.activity import ActivityFeeds
from local.fake_graph.calendar import Calendars
from local.fake_graph.call import Json, not_found
from local.fake_graph.contacts import AddressBooks
from local.fake_graph.delta import Deltas
from local.fake_graph.drive import Drives
from local.fake_graph.ids import new_outlook_id
from local.fake_graph.registration import SECRET as SECRET
from local.fake_graph.registration import Registration
from local.fake_graph.rich import Publisher
from local.fake_graph.subscription import Subscription
from local.fake_graph.subscription_book import SubscriptionBook
from local.fake_graph.uploads import Uploads

TENANT = "11111111-1111-4111-8111-111111111111"
CLIENT = "22222222-2222-4222-8222-222222222222"
DISPATCH = "aaaaaaaa-0000-4000-8000-000000000001"
DRIVER = "aaaaaaaa-0000-4000-8000-000000000002"
SERVICE_ACCOUNT = "aaaaaaaa-0000-4000-8000-000000000003"
CHAT = "19:dispatch@thread.v2"
TEAM = "bbbbbbbb-0000-4000-8000-000000000001"
CHANNEL = "19:alerts@thread.tacv2"

#: Well-known folder names, as the `mailFolders/{name}` path takes them, and what the folders are called.
FOLDERS = {
    "inbox": "Inbox",
    "drafts": "Drafts",
    "sentitems": "Sent Items",
    "deleteditems": "Deleted Items",
    "outbox": "Outbox",
}


@dataclass(slots=True)
class Mail:
    """A message in a mailbox; `value` has Graph's properties but its ids, attachments and extended properties."""

    folder: str
    value: Json
    attachments: list[Json] = field(default_factory=list)
    extended: list[Json] = field(default_factory=list)
    headers: list[Json] = field(default_factory=list)
    #: As it was transported, of a message that came from outside.
    raw: bytes | None = None
    immutable_id: str = field(default_factory=lambda: new_outlook_id("AAkALg"))
    id: str = field(default_factory=lambda: new_outlook_id("AAMkAD"))

    def move(self, folder: str) -> None:
        """To another folder: the plain id changes, the immutable one stays."""
        self.folder = folder
        self.id = new_outlook_id("AAMkAD")


@dataclass(slots=True)
class User:
    id: str
    upn: str
    name: str
    mails: dict[str, Mail] = field(default_factory=dict)
    #: Folders besides those that everybody has, by a key that is as good as a well-known name.
    own_folders: dict[str, str] = field(default_factory=dict)

    @property
    def folders(self) -> dict[str, str]:
        """What each folder is called."""
        return FOLDERS | self.own_folders

    def mail(self, mail_id: str) -> Mail:
        """By either kind of id."""
        if mail_id in self.mails:
            return self.mails[mail_id]
        for mail in self.mails.values():
            if mail.id == mail_id:
                return mail
        raise not_found("The specified object was not found in the store.", "ErrorItemNotFound")

    def folder_id(self, folder: str) -> str:
        return base64.urlsafe_b64encode(f"{self.id}/{folder}".encode()).decode()

    def folder(self, name_or_id: str) -> str:
        """The well-known name of a folder."""
        for folder in self.folders:
            if name_or_id.lower() == folder or name_or_id == self.folder_id(folder):
                return folder
        raise not_found("The specified folder could not be found in the store.", "ErrorItemNotFound")


@dataclass(frozen=True, slots=True)
class Bot:
    """Who writes in place of a person."""

    id: str
    name: str


@dataclass(slots=True)
class ChatMessage:
    """A message in a chat or channel: Graph's chatMessage, and the bytes of its hosted contents by id."""

    value: Json
    hosted: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    #: The body of a deleted message, which its author may bring back.
    kept: Json = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.value["id"])


@dataclass(slots=True)
class Chat:
    id: str
    topic: str | None
    members: list[str]
    created_at: datetime
    messages: dict[str, ChatMessage] = field(default_factory=dict)


@dataclass(slots=True)
class Channel:
    id: str
    name: str
    messages: dict[str, ChatMessage] = field(default_factory=dict)


@dataclass(slots=True)
class Team:
    """`members` are user ids; None is everybody."""

    id: str
    name: str
    channels: dict[str, Channel]
    members: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Something that subscriptions may want to know. `scopes` are all canonical resources it belongs to."""

    change_type: str
    scopes: frozenset[str]
    odata_type: str
    #: (resource path, id) in plain and in immutable spelling, which may be the same; None where Graph tells the
    #: subscription's own resource and no id, of drives.
    plain: tuple[str, str] | None
    immutable: tuple[str, str] | None
    etag: str | None = None
    #: The resource without its id, for subscriptions that want it.
    resource: Json = field(default_factory=dict)


class World:
    """Everything there is. Changed only from the event loop's thread, so that it needs no lock."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Change], None]] = []
        self.publisher = Publisher(TENANT, CLIENT)
        self.book = SubscriptionBook()
        self.reset()

    def reset(self) -> None:
        """Back to the defaults; listeners stay."""
        self.publisher.reset()
        self.book.reset()
        self.users: dict[str, User] = {}
        self.chats: dict[str, Chat] = {}
        self.teams: dict[str, Team] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.feeds = ActivityFeeds()
        #: Chats and teams in which the bot is not installed.
        self.without_bot: set[str] = set()
        #: Whether Teams drops empty elements of bots' texts.
        self.bots_lose_markup = False
        self.registration = Registration()
        self.device_codes: dict[str, Json] = {}
        self.auth_codes: dict[str, Any] = {}
        #: Who sits before the browser; None is whoever it is asked for.
        self.browser_user: str | None = None
        #: Access tokens issued before this instant (seconds) are refused as expired.
        self.tokens_valid_from = 0.0
        #: nbf that a token of this subject must have been asked with, by subject.
        self.challenges: dict[str, int] = {}
        #: Seconds that a sent draft stays a draft before its transport.
        self.transport_seconds = 0.0
        #: Refresh tokens issued before this instant (seconds) are refused as revoked, by user.
        self.sessions_valid_from: dict[str, float] = {}
        self.uploads = Uploads()
        #: Addresses that nothing reaches, with the code and text that their servers refuse it with.
        self.refused: dict[str, tuple[str, str]] = {}
        #: (user, mailbox) in small letters: who may send as whom.
        self.send_as: set[tuple[str, str]] = set()
        self._last_message_id = 0
        self.calendars = Calendars()
        self.address_books = AddressBooks()
        self.drives = Drives()
        self.deltas = Deltas()
        self.add_user(DISPATCH, "dispatch@fleet.example", "Fleet Dispatch")
        self.add_user(DRIVER, "alex.driver@fleet.example", "Alex Driver")
        self.add_user(SERVICE_ACCOUNT, "queue@fleet.example", "Fleet Queue")
        self.add_chat(CHAT, "Dispatch", [DISPATCH, DRIVER, SERVICE_ACCOUNT])
        self.add_team(TEAM, "Fleet", {CHANNEL: "Alerts"})

    def add_user(self, user_id: str, upn: str, name: str) -> User:
        """Add a user; one that is there keeps the mailbox."""
        known = self.users.get(user_id)
        self.users[user_id] = User(user_id, upn, name, known.mails if known else {})
        return self.users[user_id]

    def add_chat(self, chat_id: str, topic: str | None, members: list[str]) -> Chat:
        ids = [self.user(member).id for member in members]
        self.chats[chat_id] = Chat(chat_id, topic, ids, datetime.now().astimezone())
        return self.chats[chat_id]

    def add_team(self, team_id: str, name: str, channels: dict[str, str], members: list[str] | None = None) -> Team:
        ids = None if members is None else [self.user(member).id for member in members]
        known = {key: Channel(key, channel) for key, channel in channels.items()}
        self.teams[team_id] = Team(team_id, name, known, ids)
        return self.teams[team_id]

    def user(self, id_or_name: str) -> User:
        """By id or userPrincipalName, as Graph takes both."""
        found = self.find_user(id_or_name)
        if found is None:
            raise not_found(
                f"Resource '{id_or_name}' does not exist or one of its queried reference-property objects are not "
                "present.",
                "Request_ResourceNotFound",
            )
        return found

    def find_user(self, id_or_name: str) -> User | None:
        wanted = id_or_name.lower()
        for user in self.users.values():
            if wanted in (user.id.lower(), user.upn.lower()):
                return user
        return None

    @property
    def domains(self) -> set[str]:
        return {user.upn.rpartition("@")[2].lower() for user in self.users.values()}

    def chat(self, chat_id: str) -> Chat:
        if chat_id not in self.chats:
            raise not_found(f"NotFound: chat {chat_id}")
        return self.chats[chat_id]

    def team(self, team_id: str) -> Team:
        if team_id not in self.teams:
            raise not_found(f"No team found with Group Id {team_id}")
        return self.teams[team_id]

    def channel(self, team_id: str, channel_id: str) -> Channel:
        channels = self.team(team_id).channels
        if channel_id not in channels:
            raise not_found(f"NotFound: channel {channel_id}")
        return channels[channel_id]

    def next_message_id(self) -> str:
        """Teams' ids: the milliseconds since 1970, never twice."""
        self._last_message_id = max(self._last_message_id + 1, int(time.time() * 1000))
        return str(self._last_message_id)

    def publish(self, change: Change) -> None:
        for listener in self.listeners:
            listener(change)

    def live_subscriptions(self) -> Iterator[Subscription]:
        """Those that have not run out; Graph forgets the others."""
        now = self.book.now()
        for subscription in list(self.subscriptions.values()):
            if subscription.expires_at <= now:
                del self.subscriptions[subscription.id]
            else:
                yield subscription


def new_guid() -> str:
    return str(uuid.uuid4())
