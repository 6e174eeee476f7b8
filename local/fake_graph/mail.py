"""Mailboxes: drafts, messages and attachments, and what sending does to sender and recipients."""

from __future__ import annotations

import asyncio
import base64

from local.fake_graph import message_form as form
from local.fake_graph import mime, non_delivery, query, uploads
from local.fake_graph.call import Answer, Call, GraphError, Json, bad_request, not_found
from local.fake_graph.state import Change, Mail, User, World

#: A single POST takes attachments below this; larger ones need an upload session.
ATTACHMENT_BYTES = 3 * 1024 * 1024
#: What upload sessions take.
SMALLEST_UPLOAD_BYTES = 3_000_000
LARGEST_UPLOAD_BYTES = 150 * 1024 * 1024
SORTABLE = {"receivedDateTime", "sentDateTime", "createdDateTime", "lastModifiedDateTime", "subject", "importance"}
#: What may still be changed once a message is no draft.
CHANGEABLE = {"categories", "flag", "importance", "inferenceClassification", "isRead", "singleValueExtendedProperties"}


def create_draft(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = form.new_mail(user, call.body)
    user.mails[mail.immutable_id] = mail
    publish(world, user, mail, "created")
    return Answer(201, form.render(user, mail, call, keep_headers=False))


def list_messages(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mails = list(user.mails.values())
    if "folder" in call.params:
        folder = user.folder(call.params["folder"])
        mails = [mail for mail in mails if mail.folder == folder]
    views = [form.full(user, mail, call) for mail in reversed(mails)]
    if "$filter" in call.query:
        views = list(filter(query.parse_filter(call.query["$filter"]), views))
    views = query.order(views, call.query.get("$orderby", "receivedDateTime desc"), SORTABLE)
    top = query.number(call, "$top", 10, 1, 1000)
    body = query.page(call, views, top, f"users('{user.id}')/messages")
    body["value"] = [form.trim(view, call) for view in body["value"]]
    return Answer(200, body)


def get_message(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    return Answer(200, form.render(user, user.mail(call.params["message"]), call))


def get_mime(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    return Answer(200, mail.raw or mime.build(mail), content_type="text/plain")


def update_message(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    if not mail.value["isDraft"] and set(call.body) - CHANGEABLE:
        names = sorted(set(call.body) - CHANGEABLE)
        raise GraphError(400, "ErrorInvalidPropertySet", f"{names} can be changed only in a draft.")
    form.apply(mail, call.body)
    publish(world, user, mail, "updated")
    return Answer(200, form.render(user, mail, call))


def delete_message(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    publish(world, user, mail, "deleted")
    if mail.folder == "deleteditems":
        del user.mails[mail.immutable_id]
    else:
        mail.move("deleteditems")
    return Answer(204)


def move_message(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    folder = user.folder(call.body["destinationId"])
    publish(world, user, mail, "deleted")
    mail.move(folder)
    publish(world, user, mail, "created")
    return Answer(201, form.render(user, mail, call))


def send_draft(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    if not mail.value["isDraft"] or mail.folder == "outbox":
        raise GraphError(400, "ErrorInvalidRequest", "The message is not a draft; it has been sent.")
    _check_sendable(world, user, mail)
    _transport(world, user, mail, save=True)
    return Answer(202)


def send_mail(world: World, call: Call) -> Answer:
    """sendMail, with JSON or with base64 MIME as text/plain."""
    user = world.user(call.params["user"])
    if isinstance(call.body, bytes):
        mail, save = mime.parse_base64(call.body, user), True
    else:
        mail = form.new_mail(user, call.body["message"])
        save = call.body.get("saveToSentItems") is not False
    _check_sendable(world, user, mail)
    user.mails[mail.immutable_id] = mail
    _transport(world, user, mail, save=save)
    return Answer(202)


def list_folders(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    folders = [folder_view(user, folder) for folder in user.folders]
    top = query.number(call, "$top", 10, 1, 1000)
    return Answer(200, query.page(call, folders, top, f"users('{user.id}')/mailFolders"))


def list_attachments(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    items = [query.select(form.attachment_view(item), call.query.get("$select")) for item in mail.attachments]
    return Answer(200, query.page(call, items, 1000, "attachments"))


def get_attachment(world: World, call: Call) -> Answer:
    kept = _attachment(world, call)
    item = form.attachment_view(kept)
    expand = call.query.get("$expand")
    if expand is not None:
        if expand.lower() != "microsoft.graph.itemattachment/item":
            raise bad_request(f"Could not find a property to expand: {expand}")
        if "raw" in kept:
            item["item"] = nested_item(world.user(call.params["user"]), kept["raw"])
    return Answer(200, query.select(item, call.query.get("$select")))


def get_attachment_content(world: World, call: Call) -> Answer:
    item = _attachment(world, call)
    if item["@odata.type"] == "#microsoft.graph.referenceAttachment":
        raise GraphError(405, "ErrorInvalidRequest", "A reference attachment has no content.")
    if item["@odata.type"] == "#microsoft.graph.itemAttachment":
        return Answer(200, item["raw"], content_type="text/plain")
    content_type = item.get("contentType") or "application/octet-stream"
    return Answer(200, base64.b64decode(item["contentBytes"]), content_type=content_type)


def add_attachment(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    if not mail.value["isDraft"]:
        raise GraphError(400, "ErrorInvalidRequest", "Attachments are added to drafts only.")
    item = form.new_attachment(call.body)
    if item.get("size", 0) >= ATTACHMENT_BYTES:
        raise GraphError(413, "ErrorMessageSizeExceeded", "The attachment is 3 MB or larger.")
    mail.attachments.append(item)
    form.touch(mail)
    publish(world, user, mail, "updated")
    return Answer(201, form.attachment_view(item))


def create_upload(world: World, call: Call) -> Answer:
    """Begin to attach a large file to a draft."""
    user = world.user(call.params["user"])
    mail = user.mail(call.params["message"])
    item = call.body["AttachmentItem"]
    size = item["size"]
    if not mail.value["isDraft"]:
        raise GraphError(400, "ErrorInvalidRequest", "Attachments are added to drafts only.")
    if size < SMALLEST_UPLOAD_BYTES:
        raise GraphError(
            400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", "The attachment is smaller than 3 MB."
        )
    if size > LARGEST_UPLOAD_BYTES:
        raise GraphError(413, "ErrorAttachmentSizeLimitExceeded", "The attachment is larger than 150 MB.")
    place = f"Users('{user.id}')/Messages('{mail.immutable_id}')"

    def finish(content: bytes) -> str:
        added = form.whole_attachment(item, content)
        mail.attachments.append(added)
        form.touch(mail)
        return f"{call.base_url}{uploads.PREFIX}{place}/Attachments('{added['id']}')"

    return Answer(201, world.uploads.begin(call.base_url, place, size, finish))


def delete_attachment(world: World, call: Call) -> Answer:
    item = _attachment(world, call)
    mail = world.user(call.params["user"]).mail(call.params["message"])
    mail.attachments.remove(item)
    form.touch(mail)
    return Answer(204)


def arrive(world: World, user: User, mail: Mail) -> None:
    """Put a message that came from outside, or from a colleague, into the inbox and tell the subscriptions."""
    mail.folder = "inbox"
    user.mails[mail.immutable_id] = mail
    publish(world, user, mail, "created")


def _transport(world: World, user: User, mail: Mail, *, save: bool) -> None:
    """Send now, or, when the world says so, after a while in which the message is still a draft."""
    if world.transport_seconds <= 0:
        _deliver(world, user, mail, save)
        return
    mail.move("outbox")
    asyncio.get_running_loop().call_later(world.transport_seconds, _deliver, world, user, mail, save)


def _deliver(world: World, user: User, mail: Mail, save: bool) -> None:
    form.mark_sent(mail)
    addresses = [
        recipient["emailAddress"]["address"].lower()
        for field in ("toRecipients", "ccRecipients", "bccRecipients")
        for recipient in mail.value[field]
    ]
    failures: list[tuple[str, str, str]] = []
    for address in dict.fromkeys(addresses):
        recipient = world.find_user(address)
        reason = non_delivery.reason(world, address) if recipient is None else None
        if recipient is not None:
            arrive(world, recipient, form.received_copy(mail))
        elif reason is not None:
            failures.append((address, *reason))
    if save:
        mail.move("sentitems")
        publish(world, user, mail, "created")
    else:
        user.mails.pop(mail.immutable_id, None)
    if failures:
        arrive(world, user, non_delivery.report(user, mail, failures))


def _check_sendable(world: World, user: User, mail: Mail) -> None:
    recipients = [
        recipient for field in ("toRecipients", "ccRecipients", "bccRecipients") for recipient in mail.value[field]
    ]
    addresses = [(recipient.get("emailAddress") or {}).get("address") or "" for recipient in recipients]
    if not recipients or any("@" not in address.strip("@") for address in addresses):
        raise GraphError(400, "ErrorInvalidRecipients", "At least one recipient isn't valid.")
    sender = mail.value["from"]["emailAddress"]["address"]
    if sender.lower() != user.upn.lower() and (user.upn.lower(), sender.lower()) not in world.send_as:
        raise GraphError(
            403, "ErrorSendAsDenied",
            "The user account which was used to submit this request does not have the right to send mail on behalf "
            "of the specified sending account.",
        )  # fmt: skip


def _attachment(world: World, call: Call) -> Json:
    mail = world.user(call.params["user"]).mail(call.params["message"])
    for item in mail.attachments:
        if item["id"] == call.params["attachment"]:
            return item
    raise not_found("The specified object was not found in the store.", "ErrorItemNotFound")


def nested_item(user: User, raw: bytes) -> Json:
    """The message that an itemAttachment holds."""
    inner = mime.parse(raw, user)
    form.mark_received(inner)
    shown = {name: value for name, value in inner.value.items() if not name.startswith("@")}
    return {"@odata.type": "#microsoft.graph.message", "id": "", **shown}


def folder_view(user: User, folder: str) -> Json:
    """A folder as Graph shows it."""
    mails = [mail for mail in user.mails.values() if mail.folder == folder]
    return {
        "id": user.folder_id(folder),
        "displayName": user.folders[folder],
        "parentFolderId": user.folder_id("root"),
        "childFolderCount": 0,
        "unreadItemCount": sum(not mail.value["isRead"] for mail in mails),
        "totalItemCount": len(mails),
        "isHidden": False,
    }


def publish(world: World, user: User, mail: Mail, change_type: str) -> None:
    """Tell the subscriptions what happened to a message."""
    scopes = {
        f"users/{user.id}/messages".lower(),
        f"users/{user.id}/mailfolders/{mail.folder}/messages".lower(),
    }
    root = f"Users/{user.id}/Messages"
    change = Change(
        change_type, frozenset(scopes), "#Microsoft.Graph.Message",
        (f"{root}/{mail.id}", mail.id), (f"{root}/{mail.immutable_id}", mail.immutable_id),
        mail.value["@odata.etag"],
        {**mail.value, "parentFolderId": user.folder_id(mail.folder), "internetMessageHeaders": mail.headers},
    )  # fmt: skip
    world.publish(change)
