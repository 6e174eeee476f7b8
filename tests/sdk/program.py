"""Run by an environment that has msgraph-sdk: does by Microsoft's own client what its first argument names.

Arguments: the operation, the fake Graph's base URL, its CA file, tenant, client id, secret. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from azure.core.pipeline.transport import AsyncioRequestsTransport, RequestsTransport
from azure.identity import DeviceCodeCredential
from azure.identity.aio import ClientSecretCredential
from kiota_abstractions.api_error import APIError
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph import GraphRequestAdapter, GraphServiceClient
from msgraph.generated.models.attachment_item import AttachmentItem
from msgraph.generated.models.attachment_type import AttachmentType
from msgraph.generated.models.body_type import BodyType
from msgraph.generated.models.chat_message import ChatMessage
from msgraph.generated.models.email_address import EmailAddress
from msgraph.generated.models.file_attachment import FileAttachment
from msgraph.generated.models.item_body import ItemBody
from msgraph.generated.models.key_value_pair import KeyValuePair
from msgraph.generated.models.message import Message
from msgraph.generated.models.recipient import Recipient
from msgraph.generated.models.single_value_legacy_extended_property import SingleValueLegacyExtendedProperty
from msgraph.generated.models.subscription import Subscription
from msgraph.generated.models.teamwork_activity_topic import TeamworkActivityTopic
from msgraph.generated.models.teamwork_activity_topic_source import TeamworkActivityTopicSource
from msgraph.generated.users.item.calendar_view.delta.delta_request_builder import DeltaRequestBuilder
from msgraph.generated.users.item.messages.item.attachments.create_upload_session import (
    create_upload_session_post_request_body as upload_session,
)
from msgraph.generated.users.item.messages.item.create_reply.create_reply_post_request_body import (
    CreateReplyPostRequestBody as ReplyBody,
)
from msgraph.generated.users.item.teamwork.send_activity_notification import (
    send_activity_notification_post_request_body as notification,
)

ActivityBody = notification.SendActivityNotificationPostRequestBody
CalendarQuery = DeltaRequestBuilder.DeltaRequestBuilderGetQueryParameters
UploadBody = upload_session.CreateUploadSessionPostRequestBody
FILE_BYTES = 4_000_000
#: A multiple of 320 KiB below the 4 MB that Outlook takes in a request.
CHUNK_BYTES = 5 * 320 * 1024

USER = "dispatch@fleet.example"
PROPERTY = "String {8e1c4f2a-4f57-4d0e-9a40-000000000000} Name JobId"


async def main() -> None:
    operation, base_url, ca_file, tenant, client_id, secret = sys.argv[1:]
    transport = AsyncioRequestsTransport(connection_verify=ca_file)
    credential = ClientSecretCredential(
        tenant, client_id, secret, authority=base_url, disable_instance_discovery=True, transport=transport
    )
    provider = AzureIdentityAuthenticationProvider(
        credential, scopes=["https://graph.microsoft.com/.default"], allowed_hosts=["127.0.0.1"]
    )
    http = httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_file), trust_env=False)
    adapter = GraphRequestAdapter(provider, client=http)
    adapter.base_url = f"{base_url}/v1.0"
    async with credential, http:
        sys.stdout.write(json.dumps(await OPERATIONS[operation](GraphServiceClient(request_adapter=adapter), http)))


async def mail(graph: GraphServiceClient, _: httpx.AsyncClient) -> Any:
    """A draft with a recipient, an attachment and a property of ours; found by it, sent, and found sent."""
    draft = await graph.users.by_user_id(USER).messages.post(
        Message(
            subject="By Microsoft's client",
            body=ItemBody(content_type=BodyType.Text, content="Gate 7 ☕"),
            to_recipients=[Recipient(email_address=EmailAddress(address="alex.driver@fleet.example"))],
            single_value_extended_properties=[SingleValueLegacyExtendedProperty(id=PROPERTY, value="job-1")],
        )
    )
    attachment = FileAttachment(name="trip.txt", content_type="text/plain", content_bytes=b"trip 7")
    attachment.odata_type = "#microsoft.graph.fileAttachment"
    one = graph.users.by_user_id(USER).messages.by_message_id(draft.id)
    attached = await one.attachments.post(attachment)
    await one.send.post()
    return {"subject": draft.subject, "isDraft": draft.is_draft, "attached": attached.name, "size": attached.size}


async def missing(graph: GraphServiceClient, _: httpx.AsyncClient) -> Any:
    """An error comes in Graph's own shape."""
    try:
        await graph.users.by_user_id(USER).messages.by_message_id("nothing").get()
    except APIError as error:
        return {"status": error.response_status_code, "code": error.error.code}
    return None


async def chat(graph: GraphServiceClient, _: httpx.AsyncClient) -> Any:
    """Reading a chat, and what posting as an application gets."""
    page = await graph.chats.by_chat_id("19:dispatch@thread.v2").messages.get()
    try:
        await graph.chats.by_chat_id("19:dispatch@thread.v2").messages.post(
            ChatMessage(body=ItemBody(content_type=BodyType.Text, content="x"))
        )
    except APIError as error:
        refused = error.response_status_code
    return {"texts": [message.body.content for message in page.value], "refused": refused}


async def subscriptions(graph: GraphServiceClient, _: httpx.AsyncClient) -> Any:
    """Create with a handshake, list, renew, remove."""
    made = await graph.subscriptions.post(
        Subscription(
            change_type="created,updated",
            notification_url=sys.stdin.readline().strip(),
            resource=f"/users/{USER}/mailFolders('inbox')/messages",
            expiration_date_time=datetime.now(UTC) + timedelta(days=1),
            client_state="a state of ours",
        )
    )
    renewed = await graph.subscriptions.by_subscription_id(made.id).patch(
        Subscription(expiration_date_time=datetime.now(UTC) + timedelta(days=2))
    )
    listed = await graph.subscriptions.get()
    await graph.subscriptions.by_subscription_id(made.id).delete()
    left = await graph.subscriptions.get()
    return {
        "longer": renewed.expiration_date_time > made.expiration_date_time,
        "listed": [one.id == made.id for one in listed.value],
        "left": len(left.value),
    }


async def upload(graph: GraphServiceClient, http: httpx.AsyncClient) -> Any:
    """A file of 4 MB by an upload session; a reply draft to the mail that has it."""
    messages = graph.users.by_user_id(USER).messages
    draft = await messages.post(Message(subject="Large", body=ItemBody(content_type=BodyType.Text, content="x")))
    one = messages.by_message_id(draft.id)
    item = AttachmentItem(attachment_type=AttachmentType.File, name="trip.bin", size=FILE_BYTES)
    session = await one.attachments.create_upload_session.post(UploadBody(attachment_item=item))
    # Not by the SDK's own upload task: 1.5 of its core sends the last chunk a second time.
    for start in range(0, FILE_BYTES, CHUNK_BYTES):
        chunk = b"7" * min(CHUNK_BYTES, FILE_BYTES - start)
        span = {"Content-Range": f"bytes {start}-{start + len(chunk) - 1}/{FILE_BYTES}"}
        answer = await http.put(session.upload_url, content=chunk, headers=span)
        answer.raise_for_status()
    attached = await one.attachments.get()
    reply = await one.create_reply.post(ReplyBody(comment="Thanks"))
    return {"files": [[file.name, file.size] for file in attached.value], "reply": reply.subject}


async def deltas(graph: GraphServiceClient, _: httpx.AsyncClient) -> Any:
    """The inbox in pages of two, then what changed since; contacts; a drive."""
    folder = graph.users.by_user_id(USER).mail_folders.by_mail_folder_id("inbox")
    options = RequestConfiguration()
    options.headers.add("Prefer", "odata.maxpagesize=2")
    page, seen, pages = await folder.messages.delta.get(request_configuration=options), [], 1
    seen += [message.subject for message in page.value]
    while page.odata_next_link:
        page, pages = await folder.messages.delta.with_url(page.odata_next_link).get(), pages + 1
        seen += [message.subject for message in page.value]
    since = await folder.messages.delta.with_url(page.odata_delta_link).get()
    contacts = await graph.users.by_user_id(USER).contacts.delta.get()
    drive = await graph.users.by_user_id(USER).drive.get()
    items = await graph.drives.by_drive_id(drive.id).items.by_drive_item_id("root").delta.get()
    return {
        "mails": seen,
        "pages": pages,
        "since": len(since.value),
        "contacts": [contact.display_name for contact in contacts.value],
        "items": sorted(item.name for item in items.value),
    }


async def calendar(graph: GraphServiceClient, _: httpx.AsyncClient) -> Any:
    """What a calendar view of this year has."""
    query = CalendarQuery(start_date_time="2026-01-01T00:00:00Z", end_date_time="2027-01-01T00:00:00Z")
    page = await graph.users.by_user_id(USER).calendar_view.delta.get(RequestConfiguration(query_parameters=query))
    return [[event.subject, event.start.date_time] for event in page.value]


async def activity(graph: GraphServiceClient, _: httpx.AsyncClient) -> Any:
    """A notification in somebody's feed, twice with one chain id."""
    for _number in range(2):
        await graph.users.by_user_id(USER).teamwork.send_activity_notification.post(
            ActivityBody(
                topic=TeamworkActivityTopic(
                    source=TeamworkActivityTopicSource.Text, value="Gate 7", web_url="https://teams.microsoft.com/l/x"
                ),
                activity_type="systemDefault",
                preview_text=ItemBody(content="It is free"),
                template_parameters=[KeyValuePair(name="systemDefaultText", value="Gate 7 is free")],
                chain_id=7,
            )
        )
    return None


async def post(graph: GraphServiceClient, http: httpx.AsyncClient) -> Any:
    """A chat message as a user who has signed in with a code, a channel message and a reply to it."""
    base_url, ca_file, tenant, client_id, _ = sys.argv[2:]

    def enter(_uri: str, code: str, _until: Any) -> None:
        answer = httpx.post(
            f"{base_url}/_control/device-code/approve", json={"user_code": code, "user": "queue@fleet.example"},
            verify=ssl.create_default_context(cafile=ca_file), trust_env=False,
        )  # fmt: skip
        answer.raise_for_status()

    credential = DeviceCodeCredential(
        client_id, tenant_id=tenant, authority=base_url, disable_instance_discovery=True, prompt_callback=enter,
        transport=RequestsTransport(connection_verify=ca_file),
    )  # fmt: skip
    scopes = ["https://graph.microsoft.com/ChatMessage.Send", "https://graph.microsoft.com/ChannelMessage.Send"]
    adapter = GraphRequestAdapter(
        AzureIdentityAuthenticationProvider(credential, scopes=scopes, allowed_hosts=["127.0.0.1"]), client=http
    )
    adapter.base_url = f"{base_url}/v1.0"
    user = GraphServiceClient(request_adapter=adapter)
    message = ChatMessage(body=ItemBody(content_type=BodyType.Html, content="<b>Gate 7</b>"))
    sent = await user.chats.by_chat_id("19:dispatch@thread.v2").messages.post(message)
    team = user.teams.by_team_id("bbbbbbbb-0000-4000-8000-000000000001")
    channel = team.channels.by_channel_id("19:alerts@thread.tacv2")
    first = await channel.messages.post(message)
    reply = await channel.messages.by_chat_message_id(first.id).replies.post(message)
    return {"content": sent.body.content, "from": sent.from_.user.display_name, "reply": reply.reply_to_id == first.id}


OPERATIONS: dict[str, Callable[[GraphServiceClient, httpx.AsyncClient], Awaitable[Any]]] = {
    "mail": mail,
    "missing": missing,
    "chat": chat,
    "subscriptions": subscriptions,
    "post": post,
    "upload": upload,
    "deltas": deltas,
    "calendar": calendar,
    "activity": activity,
}

if __name__ == "__main__":
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))
    asyncio.run(main())
