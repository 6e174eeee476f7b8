"""The operations table: every request that the fake Graph takes, and what is allowed in it.

From Microsoft's REST reference, v1.0. `application` and `delegated` list the permissions of which one is enough;
None says that the kind of token is refused. `body` and `answer` name types in the schemas (checks.py); an answer
`[Type]` is a collection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from local.fake_graph.query import SKIP_TOKEN

DELTA_TOKEN = "$deltatoken"
LIST = frozenset({"$top", "$skip", "$count"})
READ = frozenset({"$select", "$expand"})
MAIL_READ = ("Mail.Read", "Mail.ReadWrite", "Mail.ReadBasic.All")
MAIL_WRITE = ("Mail.ReadWrite",)
CHAT_READ = ("Chat.Read", "Chat.ReadWrite")
#: Reading any resource's subscriptions needs no permission beyond a token; creating is checked per resource.
ANY: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    method: str
    template: str
    application: tuple[str, ...] | None
    delegated: tuple[str, ...] | None
    options: frozenset[str] = frozenset()
    body: str | None = None
    answer: str | None = None
    #: Which of Graph's published limits apply (limits.py).
    limit: str | None = None

    def allows(self, option: str) -> bool:
        """Whether this query option may be used; only those of OData are checked."""
        paged = self.answer is not None and self.answer.startswith("[")
        token = paged and option in ((SKIP_TOKEN, DELTA_TOKEN) if self.template.endswith("/delta") else (SKIP_TOKEN,))
        return not option.startswith("$") or option in self.options or token

    @property
    def pattern(self) -> re.Pattern[str]:
        escaped = re.escape(self.template).replace(r"\{", "{").replace(r"\}", "}")
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", escaped) + r"\Z", re.IGNORECASE)


def _read(name: str, path: str, answer: str, permissions: tuple[str, ...], **more: object) -> Operation:
    """Reading by either kind of token."""
    fields = {"application": permissions, "delegated": permissions, "answer": answer} | more
    return Operation(name, "GET", path, **fields)  # type: ignore[arg-type]


def _mail(name: str, method: str, path: str, **more: object) -> Operation:
    permissions = MAIL_READ if method == "GET" else MAIL_WRITE
    fields = {"application": permissions, "delegated": permissions, "limit": "mailbox"} | more
    return Operation(name, method, f"/users/{{user}}{path}", **fields)  # type: ignore[arg-type]


_MESSAGE = "/messages/{message}"
_CHAT = "/chats/{chat}/messages"
_CHANNEL = "/teams/{team}/channels/{channel}/messages"
_CHAT_READERS = (("Chat.Read.All",), CHAT_READ)
_CHANNEL_READERS = (("ChannelMessage.Read.All",), ("ChannelMessage.Read.All",))
_NOTIFY = ("TeamsActivity.Send",)
_MAIL_LIST = LIST | READ | {"$filter", "$orderby"}

OPERATIONS = (
    _mail("list_folders", "GET", "/mailFolders", options=LIST | {"$select"}, answer="[MailFolder]"),
    _mail("list_messages", "GET", "/messages", options=_MAIL_LIST, answer="[Message]"),
    _mail("list_messages", "GET", "/mailFolders/{folder}/messages", options=_MAIL_LIST, answer="[Message]"),
    _mail("create_draft", "POST", "/messages", body="Message", answer="Message"),
    _mail("get_message", "GET", _MESSAGE, options=READ, answer="Message"),
    _mail("get_mime", "GET", f"{_MESSAGE}/$value"),
    _mail("update_message", "PATCH", _MESSAGE, body="Message", answer="Message"),
    _mail("delete_message", "DELETE", _MESSAGE),
    _mail("move_message", "POST", f"{_MESSAGE}/move", body="MoveMessage", answer="Message"),
    _mail("send_draft", "POST", f"{_MESSAGE}/send", application=("Mail.Send",), delegated=("Mail.Send",),
          limit="mail_send"),
    _mail("send_mail", "POST", "/sendMail", application=("Mail.Send",), delegated=("Mail.Send",), body="SendMail",
          limit="mail_send"),
    _mail("create_reply", "POST", f"{_MESSAGE}/createReply", body="CreateAnswer", answer="Message"),
    _mail("create_reply_all", "POST", f"{_MESSAGE}/createReplyAll", body="CreateAnswer", answer="Message"),
    _mail("create_forward", "POST", f"{_MESSAGE}/createForward", body="CreateAnswer", answer="Message"),
    _mail("create_upload", "POST", f"{_MESSAGE}/attachments/createUploadSession", body="CreateUpload",
          answer="UploadSession"),
    _mail("list_attachments", "GET", f"{_MESSAGE}/attachments", options=READ, answer="[Attachment]"),
    _mail("add_attachment", "POST", f"{_MESSAGE}/attachments", body="Attachment", answer="Attachment"),
    _mail("get_attachment", "GET", f"{_MESSAGE}/attachments/{{attachment}}", options=READ, answer="Attachment"),
    _mail("delete_attachment", "DELETE", f"{_MESSAGE}/attachments/{{attachment}}"),
    _mail("get_attachment_content", "GET", f"{_MESSAGE}/attachments/{{attachment}}/$value"),
    Operation("get_chat", "GET", "/chats/{chat}", ("Chat.ReadBasic.All", "Chat.Read.All"), CHAT_READ,
              frozenset({"$select"}), answer="Chat", limit="teams_other"),
    Operation("list_chat_messages", "GET", _CHAT, *_CHAT_READERS, answer="[ChatMessage]", limit="chat_read",
              options=frozenset({"$top", "$orderby", "$filter"})),
    Operation("post_chat_message", "POST", _CHAT, None, ("ChatMessage.Send", "Chat.ReadWrite"), body="ChatMessage",
              answer="ChatMessage", limit="chat_post"),
    Operation("reply_with_quote", "POST", f"{_CHAT}/replyWithQuote", None, ("ChatMessage.Send", "Chat.ReadWrite"),
              body="ReplyWithQuote", answer="ChatMessage", limit="chat_post"),
    Operation("get_chat_message", "GET", f"{_CHAT}/{{message}}", *_CHAT_READERS, answer="ChatMessage",
              limit="chat_read"),
    Operation("list_hosted_contents", "GET", f"{_CHAT}/{{message}}/hostedContents", *_CHAT_READERS,
              answer="[ChatMessageHostedContent]", limit="chat_read"),
    Operation("get_hosted_content", "GET", f"{_CHAT}/{{message}}/hostedContents/{{content}}/$value",
              *_CHAT_READERS, limit="hosted_content"),
    Operation("list_channel_messages", "GET", _CHANNEL, *_CHANNEL_READERS, answer="[ChatMessage]",
              limit="channel_read", options=frozenset({"$top", "$expand"})),
    Operation("post_channel_message", "POST", _CHANNEL, None, ("ChannelMessage.Send",), body="ChatMessage",
              answer="ChatMessage", limit="channel_post"),
    Operation("get_channel_message", "GET", f"{_CHANNEL}/{{message}}", *_CHANNEL_READERS, answer="ChatMessage",
              limit="channel_read"),
    Operation("list_replies", "GET", f"{_CHANNEL}/{{message}}/replies", *_CHANNEL_READERS,
              answer="[ChatMessage]", limit="channel_read", options=frozenset({"$top"})),
    Operation("post_reply", "POST", f"{_CHANNEL}/{{message}}/replies", None, ("ChannelMessage.Send",),
              body="ChatMessage", answer="ChatMessage", limit="channel_post"),
    Operation("get_reply", "GET", f"{_CHANNEL}/{{message}}/replies/{{reply}}", *_CHANNEL_READERS,
              answer="ChatMessage", limit="channel_read"),
    Operation("get_hosted_content", "GET", f"{_CHANNEL}/{{message}}/hostedContents/{{content}}/$value",
              *_CHANNEL_READERS, limit="hosted_content"),
    Operation("get_hosted_content", "GET",
              f"{_CHANNEL}/{{message}}/replies/{{reply}}/hostedContents/{{content}}/$value",
              *_CHANNEL_READERS, limit="hosted_content"),
    Operation("notify_user", "POST", "/users/{user}/teamwork/sendActivityNotification", _NOTIFY, _NOTIFY,
              body="ActivityNotification", limit="activity"),
    Operation("notify_recipients", "POST", "/teamwork/sendActivityNotificationToRecipients", _NOTIFY, _NOTIFY,
              body="ActivityNotification", limit="activity_bulk"),
    Operation("notify_chat", "POST", "/chats/{chat}/sendActivityNotification", _NOTIFY, _NOTIFY,
              body="ActivityNotification", limit="activity"),
    Operation("notify_team", "POST", "/teams/{team}/sendActivityNotification", _NOTIFY, _NOTIFY,
              body="ActivityNotification", limit="activity"),
    _mail("mail_folders_delta", "GET", "/mailFolders/delta", options=frozenset({"$select"}), answer="[MailFolder]"),
    _mail("get_folder", "GET", "/mailFolders/{folder}", options=frozenset({"$select"}), answer="MailFolder"),
    _mail("messages_delta", "GET", "/mailFolders/{folder}/messages/delta", options=READ | {"$top"},
          answer="[Message]"),
    _read("calendar_view_delta", "/users/{user}/calendarView/delta", "[Event]", ("Calendars.Read",), limit="mailbox"),
    _read("contacts_delta", "/users/{user}/contacts/delta", "[Contact]", ("Contacts.Read",), limit="mailbox",
          options=frozenset({"$select"})),
    _read("contacts_delta", "/users/{user}/contactFolders/{folder}/contacts/delta", "[Contact]", ("Contacts.Read",),
          limit="mailbox", options=frozenset({"$select"})),
    _read("contact_folders_delta", "/users/{user}/contactFolders/delta", "[ContactFolder]", ("Contacts.Read",),
          limit="mailbox", options=frozenset({"$select"})),
    _read("get_drive", "/users/{user}/drive", "Drive", ("Files.Read.All",), options=frozenset({"$select"})),
    _read("get_drive", "/groups/{group}/drive", "Drive", ("Files.Read.All",), options=frozenset({"$select"})),
    _read("drive_delta", "/drives/{drive}/root/delta", "[DriveItem]", ("Files.Read.All",),
          options=frozenset({"$select", "$top"})),
    Operation("user_messages", "GET", "/users/{user}/chats/getAllMessages", ("Chat.Read.All",), None,
              frozenset({"$top", "$filter"}), answer="[ChatMessage]", limit="all_messages"),
    Operation("team_messages", "GET", "/teams/{team}/channels/getAllMessages", ("ChannelMessage.Read.All",), None,
              frozenset({"$top", "$filter"}), answer="[ChatMessage]", limit="all_messages"),
    Operation("list_subscriptions", "GET", "/subscriptions", ANY, ANY, answer="[Subscription]",
              limit="subscription_list"),
    Operation("create_subscription", "POST", "/subscriptions", ANY, ANY, body="Subscription", answer="Subscription",
              limit="subscription_write"),
    Operation("get_subscription", "GET", "/subscriptions/{subscription}", ANY, ANY, frozenset({"$select"}),
              answer="Subscription"),
    Operation("update_subscription", "PATCH", "/subscriptions/{subscription}", ANY, ANY, body="Subscription",
              answer="Subscription", limit="subscription_write"),
    Operation("delete_subscription", "DELETE", "/subscriptions/{subscription}", ANY, ANY,
              limit="subscription_write"),
    Operation("reauthorize_subscription", "POST", "/subscriptions/{subscription}/reauthorize", ANY, ANY,
              limit="subscription_reauthorize"),
)  # fmt: skip

_ROUTES = [(operation.pattern, operation) for operation in OPERATIONS]
_FOLDER = re.compile(r"/mailFolders\('([^']+)'\)", re.IGNORECASE)
#: Functions may be called with their empty brackets, as Microsoft's own clients do.
_BRACKETS = re.compile(r"\(\)$")
#: The root of a drive, spelt as one of its items.
_ROOT = re.compile(r"^/drives/([^/]+)/items/root/")


def route(method: str, raw_path: str) -> tuple[Operation, dict[str, str]] | list[str]:
    """The operation and its decoded parameters; else the methods that the path has (none: no such path)."""
    path = _ROOT.sub(r"/drives/\1/root/", _BRACKETS.sub("", _FOLDER.sub(r"/mailFolders/\1", raw_path)))
    methods: list[str] = []
    for pattern, operation in _ROUTES:
        match = pattern.match(path)
        if match is None:
            continue
        if operation.method == method:
            return operation, {name: unquote(value) for name, value in match.groupdict().items()}
        methods.append(operation.method)
    return methods
