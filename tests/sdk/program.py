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
from azure.core.pipeline.transport import AsyncioRequestsTransport
from azure.identity.aio import ClientSecretCredential
from kiota_abstractions.api_error import APIError
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph import GraphRequestAdapter, GraphServiceClient
from msgraph.generated.models.body_type import BodyType
from msgraph.generated.models.chat_message import ChatMessage
from msgraph.generated.models.email_address import EmailAddress
from msgraph.generated.models.file_attachment import FileAttachment
from msgraph.generated.models.item_body import ItemBody
from msgraph.generated.models.message import Message
from msgraph.generated.models.recipient import Recipient
from msgraph.generated.models.single_value_legacy_extended_property import SingleValueLegacyExtendedProperty
from msgraph.generated.models.subscription import Subscription

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
        sys.stdout.write(json.dumps(await OPERATIONS[operation](GraphServiceClient(request_adapter=adapter))))


async def mail(graph: GraphServiceClient) -> Any:
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


async def missing(graph: GraphServiceClient) -> Any:
    """An error comes in Graph's own shape."""
    try:
        await graph.users.by_user_id(USER).messages.by_message_id("nothing").get()
    except APIError as error:
        return {"status": error.response_status_code, "code": error.error.code}
    return None


async def chat(graph: GraphServiceClient) -> Any:
    """Reading a chat, and what posting as an application gets."""
    page = await graph.chats.by_chat_id("19:dispatch@thread.v2").messages.get()
    try:
        await graph.chats.by_chat_id("19:dispatch@thread.v2").messages.post(
            ChatMessage(body=ItemBody(content_type=BodyType.Text, content="x"))
        )
    except APIError as error:
        refused = error.response_status_code
    return {"texts": [message.body.content for message in page.value], "refused": refused}


async def subscriptions(graph: GraphServiceClient) -> Any:
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


OPERATIONS: dict[str, Callable[[GraphServiceClient], Awaitable[Any]]] = {
    "mail": mail,
    "missing": missing,
    "chat": chat,
    "subscriptions": subscriptions,
}

if __name__ == "__main__":
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))
    asyncio.run(main())
