"""Subscriptions: creation with its handshake, renewal, and which changes they hear of."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

from local.fake_graph import query, rich
from local.fake_graph.call import Answer, Call, GraphError, Json, bad_request, not_found
from local.fake_graph.handshake import HandshakeError, shake_hands
from local.fake_graph.state import CLIENT, World, new_guid
from local.fake_graph.subscription import Subscription

PAGE = 100
CLIENT_STATE_LENGTH = 128
SHORTEST = timedelta(minutes=45)
#: Teams resources need a lifecycleNotificationUrl from this lifetime on.
LIFECYCLE_FROM = timedelta(hours=1)
_PATCHABLE = {"expirationDateTime", "notificationUrl", "encryptionCertificate", "encryptionCertificateId"}


class Resource:
    """A kind of resource: its pattern, longest lifetime, change types, quotas, and the permissions that read it.

    A quota's key is filled with what the pattern names.
    """

    def __init__(
        self,
        pattern: str,
        minutes: int,
        application: str,
        delegated: str | None,
        *,
        teams: bool = False,
        changes: frozenset[str] = frozenset({"created", "updated", "deleted"}),
        quotas: dict[str, str] | None = None,
    ) -> None:
        self.pattern = re.compile(pattern + r"\Z", re.IGNORECASE)
        self.longest = timedelta(minutes=minutes)
        self.application = application
        self.delegated = delegated
        self.teams = teams
        self.changes = changes
        self.quotas = quotas or {}


_MAILBOX = {"mailbox": "{user}"}
_DRIVE = frozenset({"updated"})
RESOURCES = (
    Resource(r"users/(?P<user>[^/]+)/messages", 10_080, "Mail.Read", "Mail.Read", quotas=_MAILBOX),
    Resource(
        r"users/(?P<user>[^/]+)/mailfolders/(?P<folder>[^/]+)/messages", 10_080, "Mail.Read", "Mail.Read",
        quotas=_MAILBOX,
    ),
    Resource(r"users/(?P<user>[^/]+)/events", 10_080, "Calendars.Read", "Calendars.Read", quotas=_MAILBOX),
    Resource(r"users/(?P<user>[^/]+)/contacts", 10_080, "Contacts.Read", "Contacts.Read", quotas=_MAILBOX),
    Resource(
        r"chats/(?P<chat>[^/]+)/messages", 4_320, "Chat.Read.All", "Chat.Read", teams=True,
        quotas={"resource": "{chat}", "organization": ""},
    ),
    Resource(r"chats/getallmessages", 4_320, "Chat.Read.All", None, teams=True, quotas={"organization": ""}),
    Resource(
        r"users/(?P<user>[^/]+)/chats/getallmessages", 4_320, "Chat.Read.All", "Chat.Read", teams=True,
        quotas={"user": "{user}", "organization": ""},
    ),
    Resource(
        r"teams/(?P<team>[^/]+)/channels/(?P<channel>[^/]+)/messages", 4_320, "ChannelMessage.Read.All",
        "ChannelMessage.Read.All", teams=True, quotas={"resource": "{channel}", "organization": ""},
    ),
    Resource(
        r"teams/getallmessages", 4_320, "ChannelMessage.Read.All", None, teams=True, quotas={"organization": ""}
    ),
    Resource(
        r"users/(?P<user>[^/]+)/drive/root", 42_300, "Files.ReadWrite.All", "Files.ReadWrite", changes=_DRIVE
    ),
    Resource(r"drives/(?P<drive>[^/]+)/root", 42_300, "Files.ReadWrite.All", "Files.ReadWrite", changes=_DRIVE),
)  # fmt: skip


async def create_subscription(world: World, call: Call) -> Answer:
    body: Json = call.body
    resource, scope = find_resource(world, body["resource"])
    _check_permission(call, resource)
    now = world.book.now()
    _check_new(body, resource, now)
    expires_at = _expiry(body["expirationDateTime"], resource, now)
    for existing in world.live_subscriptions():
        if existing.scope == scope and existing.value["changeType"] == body["changeType"]:
            raise GraphError(409, "Conflict", f"Subscription Id <{existing.id}> already exists.")
    quotas = _quotas(resource, scope)
    world.book.check_quotas(quotas, world.live_subscriptions())
    # Graph shakes hands with both addresses, also when they are the same.
    for name in ("notificationUrl", "lifecycleNotificationUrl"):
        if body.get(name):
            await _shake(body[name], call.request_id)
    subscription_id = new_guid()
    value = {
        "id": subscription_id,
        "resource": body["resource"],
        "applicationId": CLIENT,
        "changeType": body["changeType"],
        "clientState": body.get("clientState"),
        "notificationUrl": body["notificationUrl"],
        "lifecycleNotificationUrl": body.get("lifecycleNotificationUrl"),
        "expirationDateTime": _instant(expires_at),
        "creatorId": call.token.subject,
        "latestSupportedTlsVersion": body.get("latestSupportedTlsVersion") or "v1_2",
        "includeResourceData": body.get("includeResourceData") is True,
        "encryptionCertificate": body.get("encryptionCertificate"),
        "encryptionCertificateId": body.get("encryptionCertificateId"),
        "notificationUrlAppId": None,
        "notificationQueryOptions": None,
    }
    subscription = Subscription(subscription_id, scope, value, expires_at, call.wants_immutable_ids, quotas)
    world.book.begin(subscription)
    world.subscriptions[subscription_id] = subscription
    return Answer(201, _entity(call, subscription))


def list_subscriptions(world: World, call: Call) -> Answer:
    # Graph does not show the client state of what it lists.
    items = [subscription.value | {"clientState": None} for subscription in world.live_subscriptions()]
    return Answer(200, query.page(call, items, PAGE, "subscriptions"))


def get_subscription(world: World, call: Call) -> Answer:
    body = _entity(call, _find(world, call)) | {"clientState": None}
    return Answer(200, query.select(body, call.query.get("$select")))


async def update_subscription(world: World, call: Call) -> Answer:
    subscription = _find(world, call)
    unknown = set(call.body) - _PATCHABLE
    if unknown:
        raise bad_request(f"{sorted(unknown)} cannot be changed; delete the subscription and create it again.")
    if not call.body.keys() & {"expirationDateTime", "notificationUrl"}:
        raise bad_request("Subscription must contain either the 'expirationDateTime' or 'notificationUrl' property.")
    resource, _ = find_resource(world, subscription.value["resource"])
    _check_permission(call, resource)
    now = world.book.now()
    wanted = subscription.value | call.body
    if wanted["includeResourceData"]:
        lifetime = _parse_instant(wanted["expirationDateTime"]) - now
        rich.check_subscription(wanted, lifetime, is_teams=resource.teams)
    if "notificationUrl" in call.body:
        await _shake(call.body["notificationUrl"], call.request_id)
        subscription.value["notificationUrl"] = call.body["notificationUrl"]
    if "expirationDateTime" in call.body:
        subscription.expires_at = _expiry(call.body["expirationDateTime"], resource, now)
        world.book.renew(subscription)
        subscription.value["expirationDateTime"] = _instant(subscription.expires_at)
    for name in ("encryptionCertificate", "encryptionCertificateId"):
        if name in call.body:
            subscription.value[name] = call.body[name]
    return Answer(200, _entity(call, subscription))


def delete_subscription(world: World, call: Call) -> Answer:
    del world.subscriptions[_find(world, call).id]
    return Answer(204)


def reauthorize_subscription(world: World, call: Call) -> Answer:
    subscription = _find(world, call)
    resource, _ = find_resource(world, subscription.value["resource"])
    _check_permission(call, resource)
    world.book.reauthorize(subscription)
    return Answer(204)


def find_resource(world: World, text: str) -> tuple[Resource, str]:
    """The kind of a resource, and its one canonical spelling; 400 for what cannot be subscribed to."""
    path = unquote(rich.split_resource(text)[0].strip("/"))
    path = re.sub(r"\('([^']+)'\)", r"/\1", path)
    for resource in RESOURCES:
        match = resource.pattern.match(path)
        if match is None:
            continue
        scope, known = path.lower(), match.groupdict()
        try:
            if "user" in known:
                user = world.user(known["user"])
                scope = scope.replace(known["user"].lower(), user.id.lower(), 1)
                if "folder" in known:
                    scope = scope.replace(known["folder"].lower(), user.folder(known["folder"]))
            if "chat" in known:
                world.chat(known["chat"])
            if "channel" in known:
                world.channel(known["team"], known["channel"])
        except GraphError as error:
            raise GraphError(404, "ResourceNotFound", error.message) from error
        return resource, scope
    raise bad_request(f"The resource '{text}' is not known to this fake.", "ExtensionError")


def _quotas(resource: Resource, scope: str) -> dict[str, str]:
    """What one subscription counts for, from the canonical spelling."""
    match = resource.pattern.match(scope)
    named = match.groupdict() if match else {}
    return {name: key.format_map(named) for name, key in resource.quotas.items()}


def _check_new(body: Json, resource: Resource, now: datetime) -> None:
    kinds = {kind.strip() for kind in body["changeType"].split(",")}
    if not kinds or kinds - resource.changes:
        raise bad_request(f"Invalid 'changeType' attribute: '{body['changeType']}'.", "InvalidRequest")
    if len(body.get("clientState") or "") > CLIENT_STATE_LENGTH:
        raise bad_request("clientState is longer than 128 characters.", "InvalidRequest")
    lifetime = _parse_instant(body["expirationDateTime"]) - now
    if body.get("includeResourceData"):
        if resource.changes is _DRIVE:
            raise bad_request("Notifications of this resource bring no resource data.", "InvalidRequest")
        rich.check_subscription(body, lifetime, is_teams=resource.teams)
    if resource.teams and lifetime > LIFECYCLE_FROM and not body.get("lifecycleNotificationUrl"):
        raise bad_request(
            "lifecycleNotificationUrl is a required property for subscription creation on this resource when the "
            "expirationDateTime value is set to greater than 1 hour.",
            "InvalidRequest",
        )


def _check_permission(call: Call, resource: Resource) -> None:
    wanted = resource.delegated if call.token.is_user else resource.application
    writing = {"Mail.Read": "Mail.ReadWrite", "Chat.Read": "Chat.ReadWrite"}.get(wanted or "")
    if wanted is None or not call.token.scopes.intersection({wanted, writing}):
        raise GraphError(403, "ExtensionError", f"The caller needs {wanted or 'an app-only token'}.", violation=True)


def _expiry(text: str, resource: Resource, now: datetime) -> datetime:
    moment = _parse_instant(text)
    if moment <= now:
        raise bad_request("Subscription expiration must be in the future.", "InvalidRequest")
    # A minute of grace for the way here.
    if moment > now + resource.longest + timedelta(minutes=1):
        minutes = int(resource.longest.total_seconds() // 60)
        raise bad_request(f"Subscription expiration can only be {minutes} minutes in the future.", "InvalidRequest")
    return max(moment, now + SHORTEST)


def _parse_instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise bad_request(f"'{text}' is no valid expirationDateTime.", "InvalidRequest") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def _shake(url: str, request_id: str) -> None:
    parts = urlsplit(url)
    # Graph wants https; a function host on this machine speaks http.
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
        raise bad_request("The notification URL must be an https address.", "InvalidRequest")
    try:
        await asyncio.to_thread(shake_hands, url, request_id)
    except HandshakeError as error:
        raise GraphError(400, "ValidationError", f"Subscription validation request failed. {error}") from error


def _find(world: World, call: Call) -> Subscription:
    wanted = call.params["subscription"].lower()
    for subscription in world.live_subscriptions():
        if subscription.id == wanted:
            return subscription
    raise not_found("The object was not found.", "ResourceNotFound")


def _entity(call: Call, subscription: Subscription) -> Json:
    context = f"{call.base_url}/v1.0/$metadata#subscriptions/$entity"
    return {"@odata.context": context} | subscription.value
