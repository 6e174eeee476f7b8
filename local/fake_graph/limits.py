"""Graph's own published limits, in sliding windows; enforced only when switched on."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from dataclasses import dataclass

from local.fake_graph.call import Call, GraphError


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` requests in any window of `seconds`, for each value of `key`."""

    key: str
    count: int
    seconds: float


_MAILBOX = Limit("mailbox:{user}", 10_000, 600)
MAILBOX_CONCURRENCY = 4
#: Figures per app and tenant unless the key names something narrower.
LIMITS: dict[str, tuple[Limit, ...]] = {
    "mailbox": (_MAILBOX,),
    "mail_send": (_MAILBOX, Limit("sent:{user}", 30, 60)),
    "chat_post": (
        Limit("chat-post", 20, 1), Limit("chat-post:{chat}", 1, 1), Limit("chat-post-user:{subject}", 1, 1),
    ),
    "channel_post": (
        Limit("channel-post", 50, 1), Limit("channel-post:{channel}", 1, 1),
        Limit("channel-post-user:{subject}", 1, 1),
    ),
    "chat_read": (Limit("chat-read", 20, 1), Limit("chat-read:{chat}", 1, 1)),
    "channel_read": (Limit("channel-read", 20, 1), Limit("channel-read:{channel}", 1, 1)),
    # A bot's, per conversation; the first per app and tenant.
    "bot_post": (
        Limit("bot-post", 50, 1), Limit("bot-post:{conversation}", 7, 1),
        Limit("bot-post-hour:{conversation}", 1800, 3600),
    ),
    "activity": (Limit("activity", 5, 1), Limit("activity:{chat}", 1, 1)),
    "activity_bulk": (Limit("activity-bulk", 2, 1),),
    "hosted_content": (Limit("hosted", 60, 1), Limit("hosted:{chat}{channel}", 1, 1)),
    "teams_other": (Limit("teams-other", 30, 1), Limit("teams-other:{chat}", 1, 1)),
    "all_messages": (Limit("all-messages", 200, 1),),
    "subscription_list": (Limit("subscription-list", 25, 20),),
    "subscription_write": (Limit("subscription-write", 500, 20),),
    "subscription_reauthorize": (Limit("subscription-reauthorize", 1000, 20),),
}  # fmt: skip


class Limits:
    """Counts every request, refused ones too, as Graph does."""

    def __init__(self) -> None:
        self._running: dict[str, int] = defaultdict(int)
        self.reset()

    def reset(self) -> None:
        """Off, and nothing counted; what runs goes on."""
        self.on = False
        #: Seconds that each request to a mailbox takes, so that requests overlap at all.
        self.mailbox_seconds = 0.0
        self._seen: dict[str, deque[float]] = defaultdict(deque)

    def check(self, name: str | None, call: Call) -> None:
        """429 with Retry-After when a limit is passed."""
        if not self.on or name is None:
            return
        now = time.monotonic()
        values = defaultdict(str, call.params | {"subject": call.token.subject})
        wait = max(self._count(limit, limit.key.format_map(values), now) for limit in LIMITS[name])
        if wait > 0:
            raise GraphError(
                429, "TooManyRequests", "Please retry again later.", headers={"Retry-After": str(math.ceil(wait))}
            )

    def enter(self, mailbox: str) -> None:
        """One more request of this mailbox runs; 429 above four at once. `leave` ends it."""
        if self.on and self._running[mailbox] >= MAILBOX_CONCURRENCY:
            raise GraphError(
                429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.",
                headers={"Retry-After": "1"},
            )  # fmt: skip
        self._running[mailbox] += 1

    def leave(self, mailbox: str) -> None:
        self._running[mailbox] -= 1

    def _count(self, limit: Limit, key: str, now: float) -> float:
        """Seconds until the next request is let through; 0 for this one."""
        seen = self._seen[key]
        while seen and seen[0] <= now - limit.seconds:
            seen.popleft()
        seen.append(now)
        return 0.0 if len(seen) <= limit.count else seen[-limit.count] + limit.seconds - now
