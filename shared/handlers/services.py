"""What handlers may use: the ports that bootstrap fills in. A handler module's `build(services)` picks from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from shared.graph.activity import ActivityClient
    from shared.graph.bot import BotClient
    from shared.graph.delta import DeltaClient
    from shared.graph.mail import MailClient
    from shared.graph.teams import TeamsClient
    from shared.graph.uploads import UploadClient, UploadUrls
    from shared.handlers.notification_channels import Channel, ChannelName, NotificationRoutes
    from shared.handlers.reconciler import Reconciler
    from shared.handlers.subscriptions import LifecycleRecords
    from shared.handlers.sync_store import SyncStore
    from shared.handlers.teams_routes import Routes
    from shared.outgoing.workflows import WorkflowClient


@dataclass(frozen=True, slots=True)
class AttachmentRecord:
    """An attachment as Graph describes it; `size` in bytes. `details` are what its kind adds."""

    external_id: str
    name: str
    content_type: str | None
    size: int | None
    is_inline: bool
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Communication:
    """One message in or out, as kept in `communication_logs`. `external_id` is Graph's id of it.

    `thread_id` is the chat, the channel thread or the mail conversation; `text` the plain text for searching;
    `automatic` says that a machine wrote it. `raw["modifiedAt"]` is the state that was seen, as a text that sorts;
    `fetched` says that Graph showed it just now, in place of a notification that brought it.
    """

    direction: Literal["in", "out"]
    channel: Literal["teams", "outlook"]
    external_id: str
    thread_id: str | None
    sender: str | None
    recipients: Sequence[str]
    subject: str | None
    body: str
    body_type: Literal["text", "html"]
    text: str
    occurred_at: datetime | None
    internet_message_id: str | None = None
    account: str | None = None
    attachments: Sequence[AttachmentRecord] = ()
    job_id: UUID | None = None
    correlation_id: str | None = None
    edited_at: datetime | None = None
    deleted_at: datetime | None = None
    automatic: bool = False
    fetched: bool = True
    raw: dict[str, Any] = field(default_factory=dict)


#: What became of a look at a message: a new row, of which the application hears (stored) or which the breaker keeps
#: from it (held); a change of what people read (edited, deleted, restored) or of something else (updated); no change;
#: a message of our own; one that was never stored.
Outcome = Literal["stored", "held", "edited", "deleted", "restored", "updated", "unchanged", "own", "unknown"]


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """An entry of `outgoing_events`: what happened (message.received …) to which message of `communication_logs`."""

    id: UUID
    kind: str
    message_id: UUID


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a message; `event` is what this job told the application of it, now or at an earlier try."""

    outcome: Outcome
    event: OutgoingEvent | None = None


class CommunicationLog(Protocol):
    """Stores messages. Idempotent: the same message (channel, direction, external id) is one row."""

    def record(self, message: Communication) -> Recorded:
        """Insert, or update with a look that is not older than the row; what changes makes an outgoing event."""
        ...

    def mark_deleted(
        self, channel: Literal["teams", "outlook"], external_id: str, job_id: UUID | None = None
    ) -> Recorded:
        """Note on a message, in or out, that it is gone; the text stays. An event tells of one that came in."""
        ...


AlertLevel = Literal["info", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that an operator should look at. `key` is the same for the same trouble: one alert is open for it.

    It has happened `times` since it was told last. `details` hold no secrets and no contents.
    """

    key: str
    level: AlertLevel
    title: str
    details: dict[str, Any] = field(default_factory=dict)
    times: int = 1


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as the dead-letter handler needs it; `job_id` is missing where a message was never a job."""

    id: UUID
    job_id: UUID | None
    queue: str
    error_class: str
    message: str


class Alerts(Protocol):
    """Open alerts for operators."""

    def dead_letter(self, dead_letter_id: UUID) -> DeadLetter | None:
        """The dead letter with this id, if it is still kept."""
        ...

    def raise_alert(self, dead_letter: DeadLetter) -> bool:
        """Open or update the alert for its queue and error class, once per dead letter; True when it opened."""
        ...


class LetterNames(Protocol):
    """By which names a dead job is found."""

    def keep(self, letter: DeadLetter) -> None:
        """Note whom the dead letter's job was for; again is no harm."""
        ...


class AlertSink(Protocol):
    """Takes alerts about anything else than dead letters."""

    def tell(self, alert: Alert) -> None:
        """Open it, or count it up while it is open."""
        ...


@dataclass(frozen=True, slots=True)
class Operator:
    """Where an operator is told; any may be missing. `endpoint` names a webhook, `dashboard` is its address."""

    chat_id: str | None = None
    mail_from: str | None = None
    mail_to: str | None = None
    endpoint: str | None = None
    dashboard: str | None = None

    def link(self, place: str) -> str | None:
        """Where the dashboard shows something, as `alerts/<id>`; None without a dashboard."""
        return f"{self.dashboard}#/{place}" if self.dashboard else None


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """A blob as it was when it was looked at; `size` in bytes."""

    size: int
    etag: str


class Blobs(Protocol):
    """Blob storage; a blob is named container/name. Raises RejectedError where there is none, or none that may be
    read, and NetworkError where it cannot be had now."""

    def facts(self, blob: str) -> BlobFacts: ...

    def read(self, blob: str, facts: BlobFacts, at: int, size: int) -> bytes:
        """A range; NetworkError too when the blob is no longer the one of `facts`."""
        ...


@dataclass(frozen=True, slots=True)
class FailedDelivery:
    """One recipient that a mail did not reach. `status` is the enhanced status code (5.1.10)."""

    recipient: str
    status: str
    diagnostic: str


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What a non-delivery report says: of which mail (its Message-ID; "": it does not say), and whom it did not reach.

    `report_id` is the Message-ID of the report itself, `account` the mailbox that got it.
    """

    report_id: str
    account: str
    reported_at: datetime | None
    message_id: str
    failures: Sequence[FailedDelivery]


class DeliveryFailures(Protocol):
    """Keeps what non-delivery reports say; a report twice is one."""

    def record(self, report: DeliveryReport) -> int:
        """Keep it, whether or not its mail is known yet; how many failures were new."""
        ...


class Services(Protocol):
    """Lazily built by bootstrap; reading a property may open connections."""

    @property
    def mail(self) -> MailClient: ...

    @property
    def teams(self) -> TeamsClient:
        """Posts as the default service account."""
        ...

    def teams_as(self, account: str) -> TeamsClient:
        """Posts as this service account (a user name). Raises RejectedError when it is none."""
        ...

    @property
    def teams_routes(self) -> Routes:
        """Who sends Teams messages."""
        ...

    @property
    def bot(self) -> BotClient: ...

    @property
    def workflows(self) -> WorkflowClient: ...

    @property
    def activity_feed(self) -> ActivityClient: ...

    @property
    def uploads(self) -> UploadClient: ...

    @property
    def upload_urls(self) -> UploadUrls: ...

    @property
    def blobs(self) -> Blobs:
        """Built on the first use of a blob: without its settings, mails without blobs are sent all the same."""
        ...

    @property
    def delivery_failures(self) -> DeliveryFailures: ...

    @property
    def delta(self) -> DeltaClient: ...

    @property
    def communications(self) -> CommunicationLog: ...

    def own_account_ids(self) -> Collection[str]:
        """The object ids of the service accounts that have signed in."""
        ...

    @property
    def events_endpoint(self) -> str | None:
        """The endpoint of outgoing webhooks that is told of each message that came in."""
        ...

    @property
    def sync(self) -> SyncStore: ...

    @property
    def alerts(self) -> Alerts: ...

    @property
    def letter_names(self) -> LetterNames: ...

    @property
    def operator(self) -> Operator: ...

    @property
    def service_account(self) -> str | None:
        """The user name of the default service account, which posts to Teams unless a job names another."""
        ...

    @property
    def reconciler(self) -> Reconciler: ...

    @property
    def subscription_records(self) -> LifecycleRecords: ...

    @property
    def notification_channels(self) -> Mapping[str, Channel]:
        """Every channel by its name; one that the settings do not provide refuses, and says what to set."""
        ...

    @property
    def notification_routes(self) -> NotificationRoutes: ...

    @property
    def default_channels(self) -> Sequence[ChannelName]:
        """The channels of users who have not chosen."""
        ...
