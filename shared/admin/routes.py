"""Every address of the admin API, declared once: triggers, roles, checks, the OpenAPI document and the reference
follow from this list.

Light on purpose: it is read at a cold start. Models are named as "module:class" of shared.admin.models, and what a
route does as "module:function" of shared.admin; both are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from shared.access import Role

READER, OPERATOR, ADMIN = Role.READER, Role.OPERATOR, Role.ADMIN
JSON, TEXT = "application/json", "text/plain"


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one address below /api/queue. `role` None: public. `also` are refusals beside the usual ones.

    `checks`: its function checks the body itself, and the model only describes it.
    """

    method: str
    path: str
    operation: str
    summary: str
    role: Role | None
    run: str
    answer: str = ""
    query: str = ""
    body: str = ""
    status: int = 200
    also: tuple[int, ...] = ()
    media: str = JSON
    checks: bool = False

    @property
    def parameters(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def refusals(self) -> list[int]:
        """The statuses of the problems that it may be answered with."""
        found = set(self.also)
        if self.role is not None:
            found |= {401, 403, 429, 503}
        if self.parameters:
            found.add(404)
        if self.body:
            found |= {413, 415, 422}
        if self.query or self.body:
            found.add(422)
        return sorted(found)


ROUTES: tuple[Route, ...] = (
    Route("GET", "health", "showHealth", "Whether everything is there; public", None, "", "documents:Health",
          also=(503,)),
    Route("GET", "openapi.json", "showOpenapi", "This document", READER, "documents:openapi", "documents:Openapi"),
    Route("GET", "stats", "showStats", "Every queue as it is now", READER, "figures:stats", "figures:Stats"),
    Route("GET", "metrics", "showMetrics", "How it went over time", READER, "figures:metrics", "figures:Metrics",
          query="figures:MetricsQuery"),
    Route("GET", "prometheus", "showPrometheus", "The figures of now as text for Prometheus", READER,
          "figures:prometheus", media=TEXT),
    Route("GET", "me", "showIdentity", "Who asks, and what they may", READER, "identity:identity", "identity:Identity"),
    # jobs
    Route("GET", "{queue}/jobs", "listJobs", "Jobs of a queue, newest first", READER, "jobs:list_jobs",
          "jobs:JobPage", query="jobs:JobsQuery"),
    Route("POST", "{queue}/jobs", "enqueueJobs", "Enqueue one job or a list of them, all or none", OPERATOR,
          "jobs:enqueue", "jobs:Receipts", body="jobs:NewJobs", status=202, also=(409,), checks=True),
    Route("GET", "{queue}/failed", "listFailed", "Jobs of a queue that ended dead, newest first", READER,
          "jobs:list_failed", "jobs:JobPage", query="jobs:FailedQuery"),
    Route("GET", "jobs", "findJobs", "Jobs of all queues, newest first, by what callers have", READER,
          "jobs:list_jobs", "jobs:JobPage", query="jobs:JobsQuery"),
    Route("GET", "jobs/{id}", "showJob", "One job with its attempts, timeline and related jobs", READER,
          "jobs:show", "jobs:JobDetail"),
    Route("PATCH", "jobs/{id}", "changeJob", "Another priority or time for a job that has not started", OPERATOR,
          "jobs:change", "jobs:Placement", body="jobs:JobChange", also=(409,)),
    Route("POST", "jobs/{id}/cancel", "cancelJob", "Cancel a job, or ask a running one to stop", OPERATOR,
          "jobs:cancel", "jobs:CancelAnswer", also=(409,)),
    Route("POST", "retry/{id}", "retryJob", "Run a scheduled job now, or a dead one again", OPERATOR,
          "jobs:retry", "jobs:RetryAnswer", also=(409,)),
    # queues
    Route("POST", "{queue}/pause", "pauseQueue", "Start no more jobs of the queue", OPERATOR, "queues:pause",
          "queues:QueueState"),
    Route("POST", "{queue}/resume", "resumeQueue", "Start jobs of the queue again", OPERATOR, "queues:resume",
          "queues:QueueState"),
    Route("POST", "{queue}/clear", "clearQueue", "Cancel the queue's jobs that have not started", ADMIN,
          "queues:clear", "queues:Cleared", query="queues:ClearQuery"),
    Route("GET", "{queue}/limits", "showLimits", "The queue's limits, and how full each is", READER,
          "queues:show_limits", "queues:QueueLimits"),
    Route("PUT", "{queue}/limits", "changeLimits", "Other limits for the queue, from now on", ADMIN,
          "queues:change_limits", "queues:QueueLimits", body="queues:LimitsChange"),
    Route("DELETE", "{queue}/limits", "resetLimits", "The queue's built-in limits again", ADMIN,
          "queues:reset_limits", "queues:QueueLimits"),
    # dead letters
    Route("GET", "dead-letter", "listDeadLetters", "Dead letters, newest first", READER,
          "dead_letters:list_letters", "dead_letters:DeadLetterPage", query="dead_letters:DeadLettersQuery"),
    Route("GET", "dead-letter/groups", "groupDeadLetters", "Open dead letters, grouped by their error", READER,
          "dead_letters:groups", "dead_letters:DeadLetterGroups", query="dead_letters:GroupsQuery"),
    Route("POST", "dead-letter/redrive", "redriveDeadLetters", "Run dead jobs again, by id or by filter", OPERATOR,
          "dead_letter_orders:redrive", "dead_letters:Redriven", body="dead_letters:RedriveOrder"),
    Route("POST", "dead-letter/discard", "discardDeadLetters", "Give up many, by id or by filter, with a note why",
          OPERATOR, "dead_letter_orders:discard", "dead_letters:Discarded", body="dead_letters:DiscardOrder"),
    Route("POST", "dead-letter/review", "reviewDeadLetters", "Note at many what was found out", OPERATOR,
          "dead_letter_orders:review", "dead_letters:Reviewed", body="dead_letters:ReviewOrder"),
    Route("GET", "dead-letter/{id}", "showDeadLetter", "One dead letter, by its id or its job's", READER,
          "dead_letters:show", "dead_letters:DeadLetter"),
    Route("POST", "dead-letter/{id}/review", "reviewDeadLetter", "Note what was found out", OPERATOR,
          "dead_letters:review", "dead_letters:DeadLetter", body="dead_letters:Review"),
    Route("POST", "dead-letter/{id}/discard", "discardDeadLetter", "Give it up: it cannot be redriven any more",
          OPERATOR, "dead_letters:discard", "dead_letters:DeadLetter", also=(409,)),
    # schedules
    Route("GET", "schedules", "listSchedules", "Recurring schedules, by name", READER, "schedules:list_schedules",
          "schedules:Schedules"),
    Route("POST", "schedules", "createSchedule", "Make a schedule", OPERATOR, "schedules:create",
          "schedules:Schedule", body="schedules:NewSchedule", status=201, also=(409,)),
    Route("PATCH", "schedules/{name}", "changeSchedule", "Change a schedule, pause it or let it go on", OPERATOR,
          "schedules:change", "schedules:Schedule", body="schedules:ScheduleChange"),
    Route("DELETE", "schedules/{name}", "deleteSchedule", "Forget a schedule; jobs that it made stay", OPERATOR,
          "schedules:delete", status=204),
    Route("POST", "schedules/{name}/run", "runSchedule", "Make a job now, besides the slots", OPERATOR,
          "schedules:run_now", "jobs:Receipt", status=202, also=(409, 422)),
    Route("GET", "schedule-times", "planSchedule", "When a cron expression is due next", READER, "schedules:plan",
          "schedules:Plan", query="schedules:PlanQuery"),
    # alerts
    Route("GET", "alerts", "listAlerts", "Alerts, newest first", READER, "alerts:list_alerts", "alerts:AlertPage",
          query="alerts:AlertsQuery"),
    Route("GET", "alerts/{id}", "showAlert", "One alert: what it means and what to do now", READER, "alerts:show",
          "alerts:Alert"),
    Route("POST", "alerts/{id}/acknowledge", "acknowledgeAlert", "Say that somebody looks after it", OPERATOR,
          "alerts:acknowledge", "alerts:Alert", also=(409,)),
    Route("GET", "thresholds", "showThresholds", "What alerts are raised at", READER, "alerts:thresholds",
          "alerts:Thresholds"),
    Route("PUT", "thresholds", "changeThresholds", "Raise alerts at other values", ADMIN, "alerts:change_thresholds",
          "alerts:Thresholds", body="alerts:ThresholdsChange"),
    # reports
    Route("GET", "reports", "listReports", "Daily reports, newest first", READER, "reports:list_reports",
          "reports:ReportPage", query="reports:ReportsQuery"),
    Route("GET", "reports/{day}", "showReport", "The figures of a day", READER, "reports:show", "reports:Report"),
    # Microsoft 365
    Route("GET", "subscriptions", "listSubscriptions", "What is watched, and how its subscription is", READER,
          "graph:list_subscriptions", "graph:SubscriptionPage", query="graph:SubscriptionsQuery"),
    Route("GET", "syncs", "listSyncs", "Runs of syncs, newest first", READER, "graph:list_syncs", "graph:SyncPage",
          query="graph:SyncsQuery"),
    # audit
    Route("GET", "audit", "listAudit", "Who changed what, newest first", READER, "audit:list_audit",
          "audit:AuditPage", query="audit:AuditQuery"),
)  # fmt: skip


def by_path(routes: Sequence[Route] = ROUTES) -> Mapping[str, Mapping[str, Route]]:
    """The routes of each path, by method: Azure cannot give the methods of one path to different functions."""
    ordered = sorted(routes, key=lambda route: route.path)
    groups = groupby(ordered, key=lambda route: route.path)
    return MappingProxyType({path: {route.method: route for route in found} for path, found in groups})


PATHS = by_path()


def hidden_paths(queues: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Addresses of queues that another address would hide, each with its path and its queue.

    A host prefers a literal to a parameter, left to right, so `dead-letter/{id}` takes what was meant for the jobs of
    the queue dead-letter. Written out, the address is literal, and wins.
    """
    found = {}
    firsts = {(path.split("/")[0], path.count("/")) for path in PATHS if "{" in path and not path.startswith("{")}
    for path in PATHS:
        for queue in queues:
            if path.startswith("{queue}/") and (queue, path.count("/")) in firsts:
                found[path.replace("{queue}", queue)] = (path, queue)
    return found
