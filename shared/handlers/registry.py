"""Every queue, declared once: triggers, poison triggers, validation, migration and docs follow from this list.

Light on purpose: importing it loads no payload model and no handler (a cold start is paid by the user);
both are named as "module:attribute" and loaded on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Literal

from shared.engine.backoff import RetryPolicy
from shared.engine.job import NORMAL_PRIORITY, ErrorClass
from shared.engine.limit_key import LimitKey
from shared.engine.ports import NO_LIMITS, Limits, Rate


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """One queue. `carries` says what its messages are: jobs (wake-ups), or Graph notifications as received.

    `payload` names a pydantic model, `build` a function from Services to a handler. `closed` is the reason why
    the queue takes no jobs yet, for the caller to read. `sealed` payloads are encrypted in the database. `limits` hold
    until an operator sets others; those for each key count by `limit_key`. So do `ageing` (a job gains one priority
    for each such time since it was due) and `retries` (delays in place of the table's, for some classes of errors).
    `internal`: the system makes its jobs for itself, about others; lists of all queues leave them out. `made_here`: the
    system makes most of its jobs, so that a field that is not known is a newer release's, for which the job waits, and
    not a caller's mistake. `names` are the
    payload's fields that say whom a job is for: a dead one is found by them.
    """

    name: str
    klass: Literal["high", "medium", "low", "special"]
    payload: str
    build: str = ""
    carries: Literal["jobs", "notifications"] = "jobs"
    priority: int = NORMAL_PRIORITY
    closed: str = ""
    sealed: bool = False
    limits: Limits = NO_LIMITS
    limit_key: LimitKey | None = None
    ageing: timedelta | None = None
    retries: Mapping[ErrorClass, RetryPolicy] = field(default_factory=dict)
    internal: bool = False
    made_here: bool = False
    names: tuple[str, ...] = ()

    @property
    def poison(self) -> str:
        return f"{self.name}-poison"

    @property
    def function(self) -> str:
        """The base of the trigger's function name."""
        return self.name.replace("-", "_")


def _declare(*specs: QueueSpec) -> Mapping[str, QueueSpec]:
    queues = {spec.name: spec for spec in specs}
    if len(queues) != len(specs):
        raise ValueError("a queue is declared twice")
    return MappingProxyType(queues)


def internal_queues() -> tuple[str, ...]:
    """Queues of what the system makes for itself."""
    return tuple(spec.name for spec in QUEUES.values() if spec.internal)


#: Microsoft's limits for one app, and what a job costs of them: docs/how-to/limit-and-order-jobs.md.
TEAMS = Limits(rate=Rate(50, timedelta(seconds=1)), concurrency=10)
OUTLOOK = Limits(rate=Rate(10_000, timedelta(minutes=10)), concurrency=20)
#: Microsoft allows 500 writes of subscriptions in 20 s; what else an administrator does must fit too.
SUBSCRIPTIONS = Limits(rate=Rate(400, timedelta(seconds=20)))

#: A mailbox takes four requests at once: two are for mails that go out, two for reading it. They have keys of their own
#: since a job waits behind all others of its key: nothing that is read shall wait for a mail's turn to be sent.
SENDS_AT_ONCE = READS_AT_ONCE = 2
MAILBOX_READS = "mailbox-reads"
#: 600 requests a minute are within SharePoint's smallest allowance too.
SYNC = Limits(rate=Rate(600, timedelta(minutes=1)), concurrency=10, key_concurrency=READS_AT_ONCE)

QUEUES = _declare(
    QueueSpec(
        "teams-outbound",
        "high",
        payload="shared.handlers.teams_payload:TeamsMessage",
        build="shared.handlers.teams_outbound:build",
        sealed=True,
        limits=replace(TEAMS, key_rate=Rate(1, timedelta(seconds=1))),
        limit_key=LimitKey("chat", (("chatId",), ("teamId", "channelId"), ("workflow",))),
        names=("channelId", "userIds"),
    ),
    QueueSpec(
        "outlook-outbound",
        "high",
        payload="shared.handlers.mail_payload:Mail",
        build="shared.handlers.outlook_outbound:build",
        sealed=True,
        limits=replace(OUTLOOK, key_rate=Rate(30, timedelta(minutes=1)), key_concurrency=SENDS_AT_ONCE, job_cost=3),
        limit_key=LimitKey("mailbox", (("from",), ("from.sender",), ("from.address",))),
        names=("to", "cc", "bcc"),
    ),
    QueueSpec(
        "notifications",
        "high",
        payload="shared.handlers.notifications:Notification",
        build="shared.handlers.notifications:build",
        sealed=True,
        limits=Limits(concurrency=10),
        names=("userIds",),
    ),
    QueueSpec(
        "teams-inbound",
        "medium",
        payload="shared.handlers.teams_inbound:ChatMessageReference",
        build="shared.handlers.teams_inbound:build",
        made_here=True,
        sealed=True,
        limits=replace(TEAMS, key_rate=Rate(1, timedelta(seconds=1))),
        limit_key=LimitKey("chat-reads", ()),
    ),
    QueueSpec(
        "outlook-inbound",
        "medium",
        payload="shared.handlers.outlook_inbound:MailReference",
        build="shared.handlers.outlook_inbound:build",
        made_here=True,
        sealed=True,
        limits=replace(OUTLOOK, key_concurrency=READS_AT_ONCE),
        limit_key=LimitKey(MAILBOX_READS, ()),
    ),
    QueueSpec(
        "webhooks",
        "medium",
        payload="shared.handlers.notification_batch:NotificationBatch",
        carries="notifications",
        closed="it carries Graph's notifications; they come in by POST /api/webhooks/graph",
    ),
    QueueSpec(
        "attachments",
        "low",
        payload="shared.handlers.payloads:AttachmentOperation",
        limits=Limits(concurrency=5),
        closed="it has no worker yet: attachments travel inside outlook-outbound payloads",
    ),
    QueueSpec(
        "sync",
        "low",
        payload="shared.handlers.sync:SyncRequest",
        build="shared.handlers.sync:build",
        made_here=True,
        limits=SYNC,
        limit_key=LimitKey(MAILBOX_READS, (("userId",), ("teamId",))),
    ),
    QueueSpec(
        "subscriptions",
        "medium",
        payload="shared.handlers.subscriptions:SubscriptionUpkeep",
        build="shared.handlers.subscriptions:build",
        made_here=True,
        limits=SUBSCRIPTIONS,
    ),
    QueueSpec(
        "dead-letter",
        "special",
        payload="shared.handlers.dead_letter:DeadLetterReference",
        build="shared.handlers.dead_letter:build",
        made_here=True,
        internal=True,
    ),
)
