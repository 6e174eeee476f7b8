"""What the end of a job does in memory: to its ordering key, to the jobs that depend on it, to its batch."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from shared.engine.enqueue import DEAD_LETTERS
from shared.engine.job import (
    BatchRecord,
    Enqueued,
    ErrorClass,
    IfDependencyFails,
    JobRecord,
    JobState,
    NewJob,
    OnDead,
    OrderingKey,
)
from shared.engine.memory_state import Batch, Letter, Row, State, has_ended


class Ends:
    """`insert` makes a job: of a dead letter, of a finished batch."""

    def __init__(self, state: State, clock: Callable[[], datetime], insert: Callable[[NewJob], Enqueued]) -> None:
        self._state = state
        self._clock = clock
        self._insert = insert
        self._released: Counter[str] = Counter()

    def end(self, row: Row, record: JobRecord) -> None:
        """Close a job as `record` says, and then every job that cannot run because of that."""
        ending = deque([(row, record)])
        while ending:
            row, record = ending.popleft()
            if has_ended(row):
                continue
            self._close(row, replace(record, finished_at=self._clock(), depends_on=()))
            for other in list(self._state.live.values()):
                if row.id not in other.record.depends_on:
                    continue
                if self._counts_as_done(row, other):
                    self._strike_off(other, row.id)
                else:
                    ending.append((other, self._failed_with(row, other)))

    def die(self, row: Row, record: JobRecord, error_class: ErrorClass | None, message: str) -> None:
        self.end(row, replace(record, state=JobState.DEAD, error_class=error_class, error_message=message))

    def wait_for(self, row: Row, job_ids: Sequence[UUID]) -> None:
        """Let a job just made wait for others; one of them may have ended so that it never runs."""
        found = [each for each in map(self._state.find, job_ids) if each is not None]
        failed = [each for each in found if has_ended(each) and not self._counts_as_done(each, row)]
        pending = dict.fromkeys(each.id for each in found if not has_ended(each))
        if failed:
            self.end(row, self._failed_with(failed[0], row))
        elif pending:
            row.record = replace(row.record, state=JobState.WAITING, depends_on=tuple(pending))

    def join(self, batch_id: UUID) -> None:
        batch = self._state.batches[batch_id]
        self._state.batches[batch_id] = replace(batch, record=replace(batch.record, total=batch.record.total + 1))

    def open_batch(self, callback: NewJob | None) -> UUID:
        batch_id = uuid4()
        record = BatchRecord(batch_id, 0, 0, 0, 0, self._clock())
        self._state.batches[batch_id] = Batch(record, callback)
        return batch_id

    def finish(self) -> Counter[str]:
        """Make the callbacks of the batches that are done; returns how many jobs became runnable since the last call,
        by that and by the end of what they depended on."""
        freed, self._released = self._released, Counter()
        for batch_id, batch in list(self._state.batches.items()):
            if batch.record.finished_at is None and batch.record.pending == 0:
                made = self._call_back(batch)
                record = replace(batch.record, finished_at=self._clock(), callback_id=made.id if made else None)
                self._state.batches[batch_id] = Batch(record, None)
                if made and made.due and batch.callback:
                    freed[batch.callback.queue] += 1
        return freed

    def bury(self, letter: Letter) -> None:
        self._state.letters.append(letter)
        if letter.queue != DEAD_LETTERS:
            self._insert(NewJob(DEAD_LETTERS, {"deadLetterId": str(letter.id)}))

    def _close(self, row: Row, record: JobRecord) -> None:
        row.record, row.token, row.held_by = record, None, None
        self._state.ended[row.id] = self._state.live.pop(row.id)
        if record.lane is not None and self._state.holders.get(record.lane) == row.id and not _blocks(row):
            del self._state.holders[record.lane]
        if record.batch_id is not None:
            self._count(record.batch_id, record.state)
        if record.state is JobState.DEAD:
            self.bury(Letter(uuid4(), record.queue, record.error_message or "", job_id=row.id))

    def _count(self, batch_id: UUID, state: JobState) -> None:
        batch = self._state.batches[batch_id]
        counts = {state.value: getattr(batch.record, state.value) + 1}
        self._state.batches[batch_id] = replace(batch, record=replace(batch.record, **counts))

    def _call_back(self, batch: Batch) -> Enqueued | None:
        if batch.callback is None:
            return None
        correlation_id = batch.callback.correlation_id or str(batch.record.id)
        return self._insert(replace(batch.callback, correlation_id=correlation_id))

    def _counts_as_done(self, ended: Row, dependent: Row) -> bool:
        return ended.state is JobState.COMPLETED or dependent.if_dependency_fails is IfDependencyFails.RUN

    def _strike_off(self, row: Row, job_id: UUID) -> None:
        """One job less to wait for; after the last it is due, or scheduled when its own time is later."""
        left = tuple(each for each in row.record.depends_on if each != job_id)
        row.record = replace(row.record, depends_on=left)
        if left:
            return
        is_due = row.record.run_at <= self._clock()
        row.record = replace(row.record, state=JobState.READY if is_due else JobState.SCHEDULED)
        if is_due:
            self._released[row.record.queue] += 1

    def _failed_with(self, failed: Row, dependent: Row) -> JobRecord:
        reason = f"job {failed.id}, which it depends on, ended as {failed.state.value}"
        if dependent.if_dependency_fails is IfDependencyFails.CANCEL:
            return replace(dependent.record, state=JobState.CANCELLED, result={"reason": reason})
        return replace(
            dependent.record,
            state=JobState.DEAD,
            error_class=ErrorClass.DEPENDENCY,
            error_message=reason,
        )


def _blocks(row: Row) -> bool:
    """A dead job keeps its ordering key, unless it died before its first attempt."""
    is_dead = row.state is JobState.DEAD and row.record.attempt > 0
    return is_dead and isinstance(row.lane, OrderingKey) and row.lane.on_dead is OnDead.BLOCK
