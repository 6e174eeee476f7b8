"""Keeps what Graph has as it is declared: one live subscription for each watched resource, and no other of ours.

A pass claims due rows (a lease, no lock), takes one step with each at Graph, and stores what came of a batch in one
transaction. Nothing relies on a pass ending: a creation is marked before it goes out, and a marked one is never
repeated before a listing of what Graph has has told how it ended. So a pass that dies at any point leaves no second
subscription, and one whose answer was lost is found again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from shared.engine.errors import FleetQueueError
from shared.graph.errors import GraphError, GraphFailure
from shared.graph.subscriptions import SubscriptionClient, SubscriptionRecord
from shared.handlers.graph_pause import PAUSE, HaltError, asked_pause
from shared.handlers.subscription_listing import SubscriptionListing
from shared.handlers.subscription_records import SubscriptionRecords
from shared.handlers.watching import (
    Held,
    Outcome,
    Step,
    Wanted,
    Watch,
    expiry,
    look_at,
    new_subscription,
    next_step,
    renew_at,
    retry_at,
)

log = logging.getLogger(__name__)

BATCH = 25
#: A pass ends after so many rows or so long; what is left is the next one's.
ROWS_A_PASS = 300
SECONDS_A_PASS = 60.0
LEASE = timedelta(minutes=10)
#: No step begins in the last part of a claim: one that hangs at Graph still ends before the claim does.
LEASE_MARGIN = timedelta(minutes=5)
#: After so many failures in a row that are Graph's own, it counts as away.
MOST_FAILURES = 5
#: After so many refusals of creations of one kind in a pass, the others of that kind wait: no storm against a quota.
MOST_REFUSALS = 10
REFUSED_PAUSE = timedelta(minutes=15)
REFUSED = (401, 402, 403)
LONGEST_PROBLEM = 500
NO_CERTIFICATE = "include_resource_data needs an encryption certificate, and the settings have none"

#: Called with the number of requests to Graph that follow; what it raises ends the pass.
Permit = Callable[[int], None]


@dataclass(slots=True)
class Tally:
    """What a pass did: how often each outcome; `has_more`: rows may be due still."""

    outcomes: Counter[str] = field(default_factory=Counter)
    has_more: bool = False


@dataclass(slots=True)
class _Pass:
    """What one pass remembers from row to row."""

    permit: Permit
    until: float
    failures: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)


class _CreationFailed(Exception):
    """`unfinished`: it may have had its effect. `removed`: the one before it is gone already."""

    def __init__(self, cause: GraphFailure, *, unfinished: bool, removed: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.unfinished = unfinished
        self.removed = removed


class _BatchEnded(Exception):
    """No more of this batch: `error` is for all, `outcome` what is known of the row that met it."""

    def __init__(self, error: HaltError, outcome: Outcome | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.outcome = outcome


class Reconciler:
    """One for a process; any number may run at once."""

    def __init__(
        self,
        graph: SubscriptionClient,
        records: SubscriptionRecords,
        wanted: Wanted,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._graph = graph
        self._records = records
        self._listing = SubscriptionListing(graph, records)
        self._wanted = wanted
        self._monotonic = monotonic

    def run(self, permit: Permit = lambda _: None) -> Tally:
        """One pass. What `permit` raises is raised on, with all that was done stored. Raises StoreUnavailableError."""
        wanted = self._wanted
        self._records.note_settings(wanted)
        this = _Pass(permit, self._monotonic() + SECONDS_A_PASS)
        try:
            self._keep_rows(this, wanted)
            if self._listing.go_on(permit, wanted.base_url):
                self._keep_rows(this, wanted)
            this.tally.outcomes["strays removed"] += self._listing.remove_strays(permit, BATCH)
        except HaltError as halt:
            self._records.pause(halt.pause, str(halt))
            log.warning("subscriptions.paused", extra={"seconds": halt.pause.total_seconds(), "error": str(halt)})
        # A row that somebody had locked just now, or made due, is not left to the timer.
        this.tally.has_more = self._records.due()[0] > 0
        log.info("subscriptions.kept", extra={"outcomes": dict(this.tally.outcomes)})
        return this.tally

    def _keep_rows(self, this: _Pass, wanted: Wanted) -> None:
        while this.tally.outcomes.total() < ROWS_A_PASS and self._monotonic() < this.until:
            last_start = self._monotonic() + (LEASE - LEASE_MARGIN).total_seconds()
            token, watches = self._records.claim(BATCH, LEASE)
            if not watches:
                return
            self._keep_batch(this, wanted, token, watches, last_start)

    def _keep_batch(
        self, this: _Pass, wanted: Wanted, token: UUID, watches: Sequence[Watch], last_start: float
    ) -> None:
        steps = [(watch, next_step(watch, wanted)) for watch in watches]
        creations = [watch for watch, step in steps if step.creates]
        if creations:
            self._records.mark_creating(token, creations, wanted.state_id)
        outcomes: list[Outcome] = []
        try:
            for watch, step in steps:
                if self._monotonic() > last_start:
                    break
                outcomes.append(self._take(this, wanted, watch, step))
        except _BatchEnded as ended:
            self._settle(this, token, watches, [*outcomes, ended.outcome] if ended.outcome else outcomes)
            raise ended.error from None
        except FleetQueueError:  # of the permit: none is left, or the job's lease is lost
            self._settle(this, token, watches, outcomes)
            raise
        self._settle(this, token, watches, outcomes)
        for kind, count in this.refusals.items():
            if count >= MOST_REFUSALS:
                reason = f"Graph refuses subscriptions of the kind {kind}; this one waits for its turn"
                self._records.postpone_kind(kind, REFUSED_PAUSE, reason)

    def _settle(self, this: _Pass, token: UUID, watches: Sequence[Watch], outcomes: list[Outcome]) -> None:
        """Store what came of the batch; what was not reached is given back as it was."""
        done = {outcome.watch_id for outcome in outcomes}
        released = [Outcome(watch.id, "released") for watch in watches if watch.id not in done]
        self._records.settle(token, [*outcomes, *released])
        this.tally.outcomes.update(outcome.state for outcome in outcomes)

    def _take(self, this: _Pass, wanted: Wanted, watch: Watch, step: Step) -> Outcome:
        """Take one step with a row. Raises _BatchEnded where its failure means something for all."""
        try:
            outcome = self._step(this, wanted, watch, step)
            this.failures = 0
            return outcome
        except _CreationFailed as failed:
            return self._judge(this, wanted, watch, step, failed)
        except GraphFailure as cause:
            return self._judge(this, wanted, watch, step, _CreationFailed(cause, unfinished=False, removed=False))

    def _step(self, this: _Pass, wanted: Wanted, watch: Watch, step: Step) -> Outcome:
        held = watch.held
        if step.creates or step is Step.RENEW:
            if watch.include_resource_data and wanted.certificate is None:
                due_at = retry_at(watch, refused=True)
                return Outcome(watch.id, "failed", due_at, problem=NO_CERTIFICATE, refused=True)
            if held is None or step is not Step.RENEW:
                return self._create(this, wanted, watch, held if step is Step.REPLACE else None)
            return self._renew(this, wanted, watch, held)
        if held is None:
            return Outcome(watch.id, "ended")
        if step is Step.WAIT:
            return Outcome(watch.id, "kept", look_at(watch, held))
        this.permit(1)
        self._graph.delete(held.id)
        return Outcome(watch.id, "ended")

    def _renew(self, this: _Pass, wanted: Wanted, watch: Watch, held: Held) -> Outcome:
        certificate = wanted.certificate if watch.include_resource_data else None
        this.permit(1)
        try:
            record = self._graph.update(held.id, expiry(watch), certificate=certificate)
        except GraphError as error:
            if error.status != 404:
                raise
            return Outcome(watch.id, "gone")
        return Outcome(watch.id, "renewed", renew_at(watch.id, record, watch.now), record, held.state_id)

    def _create(self, this: _Pass, wanted: Wanted, watch: Watch, replaced: Held | None) -> Outcome:
        """Create, in place of another where there is one: Graph takes no second one beside it.

        The one to go is moved to the new address first, so that it lives on when nobody answers there.
        """
        this.permit(1 if replaced is None else 3)
        if replaced is not None:
            if replaced.notification_url != wanted.notification_url:
                self._move(replaced, watch, wanted)
            self._graph.delete(replaced.id)
        try:
            record = self._graph.create(new_subscription(watch, wanted))
        except GraphError as error:
            if error.status == 409:
                problem = "Graph has another subscription to the resource; a listing will show it"
                due_at = retry_at(watch, refused=False)  # unless the listing shows that it is ours after all
                return Outcome(watch.id, "unfinished", due_at, problem=problem, removed=replaced is not None)
            raise _CreationFailed(error, unfinished=error.status >= 500, removed=replaced is not None) from error
        except GraphFailure as error:
            raise _CreationFailed(error, unfinished=error.sent, removed=replaced is not None) from error
        return Outcome(
            watch.id,
            "created",
            renew_at(watch.id, record, watch.now),
            record,
            wanted.state_id,
            gap="replaced" if replaced is not None else "expired" if watch.held is not None else None,
        )

    def _move(self, replaced: SubscriptionRecord, watch: Watch, wanted: Wanted) -> None:
        try:
            self._graph.update(replaced.id, expiry(watch), notification_url=wanted.notification_url)
        except GraphError as error:
            if error.status != 404:
                raise

    def _judge(self, this: _Pass, wanted: Wanted, watch: Watch, step: Step, failed: _CreationFailed) -> Outcome:
        cause = failed.cause
        log.warning(
            "subscription.failed",
            extra={"watch_id": str(watch.id), "step": step.value, "tries": watch.tries + 1, "error": str(cause)},
        )
        refused = isinstance(cause, GraphError) and cause.status in REFUSED
        outcome = Outcome(
            watch.id,
            "unfinished" if failed.unfinished else "failed",
            retry_at(watch, refused=refused),
            state_id=wanted.state_id if failed.unfinished else None,
            problem=str(cause)[:LONGEST_PROBLEM],
            refused=refused,
            removed=failed.removed,
        )
        pause = asked_pause(cause)
        if pause is not None:
            # A row that met a closed door is as it was, unless something of its own has happened.
            raise _BatchEnded(HaltError(pause, str(cause)), outcome if failed.unfinished or failed.removed else None)
        if not isinstance(cause, GraphError) or cause.status >= 500:
            this.failures += 1
            if this.failures >= MOST_FAILURES:
                raise _BatchEnded(HaltError(PAUSE, str(cause)), outcome)
        if refused and step.creates:
            this.refusals[watch.kind] += 1
        return outcome
