"""Sends a message to a Teams chat, a channel, a thread of a channel or people; each job once, as far as one can know.

Who sends it is a choice of the payload or of the settings (teams_routes); each sender is in teams_senders. The message
is kept in `communication_logs` whoever has sent it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shared.engine.context import Context, Handler
from shared.engine.errors import RejectedError
from shared.engine.job import Completed, Job
from shared.handlers.graph_errors import graph_attempt
from shared.handlers.html_text import plain_text
from shared.handlers.services import AttachmentRecord, Communication, CommunicationLog, Services
from shared.handlers.teams_bodies import content_html
from shared.handlers.teams_limits import problems, route_of
from shared.handlers.teams_payload import TeamsMessage
from shared.handlers.teams_routes import Route, Routes
from shared.handlers.teams_senders import (
    AccountSender,
    ActivitySender,
    BotSender,
    Sent,
    TeamsSender,
    WorkflowSender,
)

if TYPE_CHECKING:
    from shared.graph.activity import ActivityClient
    from shared.graph.bot import BotClient
    from shared.graph.teams import TeamsClient
    from shared.outgoing.workflows import WorkflowClient


class TeamsServices(Protocol):
    """What this handler uses of Services; each is built when a message first needs it."""

    @property
    def teams(self) -> TeamsClient: ...

    def teams_as(self, account: str) -> TeamsClient: ...

    @property
    def service_account(self) -> str | None: ...

    @property
    def bot(self) -> BotClient: ...

    @property
    def workflows(self) -> WorkflowClient: ...

    @property
    def activity_feed(self) -> ActivityClient: ...

    @property
    def teams_routes(self) -> Routes: ...

    @property
    def communications(self) -> CommunicationLog: ...


class TeamsOutbound:
    """The handler of `teams-outbound`."""

    def __init__(self, services: TeamsServices) -> None:
        self._services = services

    def __call__(self, job: Job, payload: TeamsMessage, context: Context) -> Completed:
        routes = self._services.teams_routes
        # The rules may have changed since the job was enqueued, to a sender that cannot carry it.
        if found := list(problems(payload, routes)):
            raise RejectedError("; ".join(found))
        route = route_of(payload, routes)
        context.note(sender=route.sender)
        with graph_attempt(context):
            sent = self._sender(route, routes).deliver(job, payload, context)
        if sent.marker_kept is not None:
            context.note(marker_kept=sent.marker_kept)
        self._services.communications.record(_communication(job, payload, sent))
        return Completed(
            {
                "outcome": "sent",
                "sender": route.sender,
                "message_id": sent.message_id,
                "web_url": sent.web_url,
                "read_back": sent.read_back,
                "sent_at": sent.occurred_at.isoformat() if sent.occurred_at is not None else None,
            }
        )

    def _sender(self, route: Route, routes: Routes) -> TeamsSender:
        services = self._services
        match route.sender:
            case "bot":
                return BotSender(services.bot, services.teams)
            case "workflow":
                return WorkflowSender(services.workflows, route.name or "", resend_lost=routes.resend_lost)
            case "activity":
                return ActivitySender(services.activity_feed)
        if route.name is None:
            return AccountSender(services.teams, services.service_account)
        return AccountSender(services.teams_as(route.name), route.name)


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built. Settings that are missing show here, where jobs wait for them."""
    _ = services.teams, services.teams_routes
    return TeamsOutbound(services)


def _communication(job: Job, payload: TeamsMessage, sent: Sent) -> Communication:
    is_html = payload.content_type == "html"
    body = content_html(payload) if is_html else payload.content
    return Communication(
        direction="out",
        channel="teams",
        external_id=sent.external_id,
        thread_id=sent.thread_id,
        sender=sent.sender,
        recipients=list(payload.user_ids) or [payload.target or sent.sender or ""],
        subject=payload.topic.value if payload.topic else None,
        body=body,
        body_type=payload.content_type,
        text=plain_text(body) if is_html else body.strip(),
        occurred_at=sent.occurred_at,
        account=sent.sender,
        attachments=_attachments(payload),
        job_id=job.id,
        correlation_id=job.correlation_id,
        raw={
            "importance": payload.importance,
            "mentions": [mention.model_dump(by_alias=True) for mention in payload.mentions],
            "card": payload.card,
            "webUrl": sent.web_url,
        },
    )


def _attachments(payload: TeamsMessage) -> list[AttachmentRecord]:
    files = [
        AttachmentRecord(file.id, file.name, "reference", None, is_inline=False, kind="reference")
        for file in payload.attachments
    ]
    images = [
        AttachmentRecord(
            image.content_id, image.content_id, image.content_type, image.size, is_inline=True, kind="hostedContent"
        )
        for image in payload.images
    ]
    return files + images
