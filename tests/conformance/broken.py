"""Drivers with one fault each: what the suite must catch, so that it is known to look."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias

from asyncflow import limits
from asyncflow.errors import AlreadyExists, Malformed
from runner.stores.base import (
    PRUNE_LIMIT,
    Conflict,
    Failed,
    HistoryPage,
    Key,
    Label,
    Outcome,
    Outcomes,
    Page,
    Revision,
    Saved,
    Stored,
    Write,
)
from runner.stores.encoding import encode_entries
from runner.stores.memory import MemoryStore

Keys: TypeAlias = Sequence[Key]


class NoCompareAndSet(MemoryStore):
    """Saves whatever the revision."""

    def _apply(self, write: Write) -> Outcome:
        row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
        if row is not None and write.expected is not None:
            write = replace(write, expected=row.revision)
        return super()._apply(write)


class CreateOverwrites(MemoryStore):
    """A create replaces what is there."""

    def _apply(self, write: Write) -> Outcome:
        row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
        if row is not None and write.expected is None:
            write = replace(write, expected=row.revision)
        return super()._apply(write)


class RevisionsStartAgain(MemoryStore):
    """A revision is the number of saves: that of a deleted instance fits the next one of its id."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(write)
        if isinstance(outcome, Saved):
            row = self._shared.rows[Key(write.record.workflow, write.record.id)]
            row.revision = 1 if write.expected is None else int(str(write.expected)) + 1
            return Saved(row.revision)
        return outcome


class LostDueIndex(MemoryStore):
    """Due is what was due when it was created."""

    def _apply(self, write: Write) -> Outcome:
        row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
        wake_at = None if row is None else row.wake_at
        outcome = super()._apply(write)
        if row is not None:
            row.wake_at = wake_at
        return outcome


class StaleRead(MemoryStore):
    """Remembers what it has read."""

    def get(self, workflow: str, id: str) -> Stored | None:
        seen: dict[Key, Stored] = self.__dict__.setdefault("seen", {})
        found = seen.get(Key(workflow, id)) or super().get(workflow, id)
        if found is not None:
            seen[Key(workflow, id)] = found
        return found


class AnswersBeforeTheFlush(MemoryStore):
    """Says `Saved` and keeps the write to itself until the next call."""

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        self._flush()
        self.pending = list(writes)
        return [Saved(self._shared.writes + number) for number in range(1, len(writes) + 1)]

    def get(self, workflow: str, id: str) -> Stored | None:
        self._flush()
        return super().get(workflow, id)

    def close(self) -> None:
        self._flush()
        super().close()

    def _flush(self) -> None:
        pending, self.pending = self.__dict__.get("pending", []), []
        super().commit(pending)


class NeighbourConflicts(MemoryStore):
    """One transaction for all: a conflict undoes the whole batch."""

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        before = dict(self._shared.rows), self._shared.writes
        rows = {key: replace(row, history=list(row.history)) for key, row in self._shared.rows.items()}
        outcomes = super().commit(writes)
        if any(isinstance(outcome, Conflict) for outcome in outcomes):
            self._shared.rows.clear()
            self._shared.rows.update({key: rows[key] for key in before[0]})
            return [Conflict()] * len(writes)
        return outcomes


class NeighbourFails(MemoryStore):
    """One record that cannot be stored fails the whole batch."""

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        try:
            for write in writes:
                encode_entries(write.entries)
        except Malformed as error:
            return [Failed(error)] * len(writes)
        return super().commit(writes)


class AnswersOutOfOrder(MemoryStore):
    """Commits creates first and answers in that order."""

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        return super().commit(sorted(writes, key=lambda write: write.expected is not None))


class LastOfABatchWins(MemoryStore):
    """Looks at the revisions of a batch before it writes any of it."""

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        fresh: list[Write] = []
        for write in writes:
            row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
            fresh.append(replace(write, expected=None if row is None else write.expected))
        outcomes: Outcomes = []
        for write in fresh:
            row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
            again = row is not None and any(done.record.id == write.record.id for done in fresh[: len(outcomes)])
            outcomes += super().commit([replace(write, expected=row.revision) if row and again else write])
        return outcomes


class HistoryOutsideTheTransaction(MemoryStore):
    """Appends the entries first, and saves then."""

    def _apply(self, write: Write) -> Outcome:
        row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
        if row is None or not write.entries:
            return super()._apply(write)
        last, text = encode_entries(write.entries)
        row.history.append((last, write.record.updated_at, text))
        return super()._apply(replace(write, entries=()))


class HistoryLater(MemoryStore):
    """Keeps the entries of a save until the next one."""

    def _apply(self, write: Write) -> Outcome:
        waiting: list[Any] = self.__dict__.setdefault("waiting", [])
        entries = [*waiting, *write.entries]
        waiting[:] = write.entries
        return super()._apply(replace(write, entries=entries[: len(entries) - len(write.entries)]))


class MillisecondTimes(MemoryStore):
    """Keeps times as milliseconds."""

    def get(self, workflow: str, id: str) -> Stored | None:
        stored = super().get(workflow, id)
        if stored is None:
            return None
        at = stored.record.updated_at
        rounded = at.replace(microsecond=at.microsecond // 1_000 * 1_000)
        return replace(stored, record=replace(stored.record, updated_at=rounded))


class TextsAreParsed(MemoryStore):
    """Stores what it understands of a text."""

    def get(self, workflow: str, id: str) -> Stored | None:
        stored = super().get(workflow, id)
        if stored is None:
            return None
        text = stored.record.document.decode(errors="replace").strip().encode()
        return replace(stored, record=replace(stored.record, document=text))


class TruthIsANumber(MemoryStore):
    """Keeps true and false as SQL does."""

    def _apply(self, write: Write) -> Outcome:
        labels: dict[str, Label] = {
            name: int(value) if isinstance(value, bool) else value for name, value in write.record.labels.items()
        }
        return super()._apply(replace(write, record=replace(write.record, labels=labels)))


class LabelsOfTheCreate(MemoryStore):
    """Never changes the index of labels."""

    def _apply(self, write: Write) -> Outcome:
        row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
        if row is not None and write.expected is not None:
            write = replace(write, record=replace(write.record, labels=row.record.labels))
        return super()._apply(write)


class HoldersOfTheCreate(MemoryStore):
    """Never changes the index of processes."""

    def _apply(self, write: Write) -> Outcome:
        row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
        if row is not None and write.expected is not None:
            write = replace(write, record=replace(write.record, holders=row.record.holders))
        return super()._apply(write)


class TokensAreOffsets(MemoryStore):
    """A page begins so many lines behind the first."""

    def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        status: str | None = None,
        filter: str = "",
        page_size: int = limits.PAGE_SIZE,
        page_token: str | None = None,
    ) -> Page:
        whole = super().list(workflows, status=status, filter=filter, page_size=limits.PAGE_SIZE_MAX)
        start = int(page_token or "0")
        more = start + page_size < len(whole.items)
        return Page(whole.items[start : start + page_size], str(start + page_size) if more else None)


class TokensFitEverything(MemoryStore):
    """Does not look which question a token belongs to."""

    def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        status: str | None = None,
        filter: str = "",
        page_size: int = limits.PAGE_SIZE,
        page_token: str | None = None,
    ) -> Page:
        try:
            return super().list(workflows, status=status, filter=filter, page_size=page_size, page_token=page_token)
        except Malformed:
            return super().list(workflows, status=status, filter=filter, page_size=page_size)


class TiesAreForgotten(MemoryStore):
    """Goes on behind the instant at which a page ended, not behind its last line."""

    def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        status: str | None = None,
        filter: str = "",
        page_size: int = limits.PAGE_SIZE,
        page_token: str | None = None,
    ) -> Page:
        page = super().list(workflows, status=status, filter=filter, page_size=page_size, page_token=page_token)
        seen: set[datetime] = self.__dict__.setdefault("seen", set())
        if page_token is None:
            seen.clear()
        items = tuple(item for item in page.items if item.created_at not in seen)
        seen |= {item.created_at for item in items}
        return replace(page, items=items)


class FiltersLeaveOut(MemoryStore):
    """Ignores what it cannot filter."""

    def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        status: str | None = None,
        filter: str = "",
        page_size: int = limits.PAGE_SIZE,
        page_token: str | None = None,
    ) -> Page:
        try:
            return super().list(workflows, status=status, filter=filter, page_size=page_size, page_token=page_token)
        except Malformed:
            return super().list(workflows, status=status, page_size=page_size)


class HandsOutTwice(MemoryStore):
    """Gives due work to everybody who asks."""

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Keys:
        before = {key: row.wake_at for key, row in self._shared.rows.items()}
        found = super().due(workflows, now=now, limit=limit, process=process)
        for key in found:
            self._shared.rows[key].wake_at = before[key]
        return found


class HandsOutForEver(MemoryStore):
    """What was handed out is never due again, though its worker may have died."""

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Keys:
        found = super().due(workflows, now=now, limit=limit, process=process)
        for key in found:
            self._shared.rows[key].wake_at = None
        return found


class HandingOutIsASave(MemoryStore):
    """Changes the revision of what it hands out, so that its worker conflicts with itself."""

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Keys:
        found = super().due(workflows, now=now, limit=limit, process=process)
        for key in found:
            self._shared.writes += 1
            self._shared.rows[key].revision = self._shared.writes
        return found


class HandsOutToNobody(MemoryStore):
    """Does not keep who got it: after a crash of that process it waits for its 30 s."""

    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Keys:
        return super().due(workflows, now=now, limit=limit)


class ParkingRewrites(MemoryStore):
    """Writes the status into the document, which it cannot read."""

    def park(self, workflow: str, id: str, expected: Revision, reason: str) -> bool:
        parked = super().park(workflow, id, expected, reason)
        if parked:
            row = self._shared.rows[Key(workflow, id)]
            row.record = replace(row.record, document=b'{"status":"Paused"}')
        return parked


class ParksWhateverIsThere(MemoryStore):
    """Marks a document that it has not read."""

    def park(self, workflow: str, id: str, expected: Revision, reason: str) -> bool:
        row = self._shared.rows.get(Key(workflow, id))
        return super().park(workflow, id, expected if row is None else row.revision, reason)


class MarksStay(MemoryStore):
    """A save leaves the mark and the tries where they are."""

    def _apply(self, write: Write) -> Outcome:
        row = self._shared.rows.get(Key(write.record.workflow, write.record.id))
        before = (None, 0) if row is None else (row.reason, row.tries)
        outcome = super()._apply(write)
        if row is not None:
            row.reason, row.tries = before
        return outcome


class EverybodyLives(MemoryStore):
    """A process that is gone keeps its name and its leases."""

    def close(self) -> None:
        living = set(self._shared.living)
        super().close()
        self._shared.living |= living


class NamesAreShared(MemoryStore):
    """Two living processes may have one name."""

    def enter(self, process: str) -> None:
        try:
            super().enter(process)
        except AlreadyExists:
            self._entered.add(process)


class SweepsTheLiving(MemoryStore):
    """Goes by `expires_at` alone."""

    def expired(self, workflows: Collection[str], *, now: datetime, limit: int) -> Keys:
        return self._by_time(workflows, lambda row: row.record.expires_at, now)[:limit]


class PrunesTheLiving(MemoryStore):
    """Forgets the history of whoever has any."""

    def prune_history(self, workflows: Collection[str], *, before: datetime, live: bool = False, limit: int = PRUNE_LIMIT) -> int:
        return super().prune_history(workflows, before=before, live=True, limit=limit)


class HistoryOutlives(MemoryStore):
    """The history of a deleted instance is shown by the next one of its id."""

    def delete(self, workflow: str, id: str, expected: Revision) -> bool:
        row = self._shared.rows.get(Key(workflow, id))
        deleted = super().delete(workflow, id, expected)
        if deleted and row is not None:
            self.__dict__.setdefault("graves", {})[Key(workflow, id)] = row.history
        return deleted

    def history(self, workflow: str, id: str, *, page_size: int = limits.PAGE_SIZE, page_token: str | None = None) -> HistoryPage:
        row = self._shared.rows.get(Key(workflow, id))
        if row is not None:
            row.history[:0] = self.__dict__.get("graves", {}).pop(Key(workflow, id), [])
        return super().history(workflow, id, page_size=page_size, page_token=page_token)


class NoticesItselfOnly(MemoryStore):
    """Counts its own writes."""

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        self.own = self.__dict__.get("own", 0) + 1
        return super().commit(writes)

    def changed(self) -> Hashable:
        return int(self.__dict__.get("own", 0))


class SetsTheTimeOfCreation(MemoryStore):
    """Takes `uid` and `created_at` from every save: a list moves under whoever pages through it."""

    def _apply(self, write: Write) -> Outcome:
        outcome = super()._apply(write)
        if isinstance(outcome, Saved):
            row = self._shared.rows[Key(write.record.workflow, write.record.id)]
            row.record = replace(row.record, uid=write.record.uid, created_at=write.record.created_at)
        return outcome


class OpenAfterClosing(MemoryStore):
    """Goes on answering when it is closed."""

    def close(self) -> None:
        super().close()
        self._closed = False


# Each with the test of the suite that catches it.
CAUGHT_BY: dict[type[MemoryStore], str] = {
    NoCompareAndSet: "test_a_save_needs_the_revision_of_the_last_one",
    CreateOverwrites: "test_a_second_create_of_an_id_changes_nothing",
    RevisionsStartAgain: "test_an_id_used_again_is_another_instance",
    LostDueIndex: "test_due_follows_each_save",
    StaleRead: "test_another_process_sees_a_save_at_once",
    AnswersBeforeTheFlush: "test_what_was_acknowledged_survives_a_crash",
    NeighbourConflicts: "test_each_write_of_a_batch_stands_for_itself",
    NeighbourFails: "test_what_cannot_be_stored_is_refused_alone",
    AnswersOutOfOrder: "test_each_write_of_a_batch_stands_for_itself",
    LastOfABatchWins: "test_of_two_writes_with_one_revision_the_first_is_saved",
    HistoryOutsideTheTransaction: "test_entries_are_there_exactly_when_their_save_is",
    HistoryLater: "test_what_was_acknowledged_survives_a_crash",
    MillisecondTimes: "test_times_are_kept_to_the_microsecond_and_read_in_utc",
    TextsAreParsed: "test_texts_come_back_byte_for_byte",
    TruthIsANumber: "test_filters_find_what_fits",
    LabelsOfTheCreate: "test_labels_are_those_of_the_last_save",
    HoldersOfTheCreate: "test_leases_follow_each_save",
    TokensAreOffsets: "test_what_is_started_saved_or_deleted_meanwhile_moves_nothing",
    TokensFitEverything: "test_a_token_belongs_to_its_question",
    TiesAreForgotten: "test_of_one_instant_the_largest_id_and_workflow_come_first",
    FiltersLeaveOut: "test_a_field_that_cannot_be_filtered_is_named",
    HandsOutTwice: "test_no_two_workers_get_the_same",
    HandsOutForEver: "test_what_was_handed_out_is_due_again_later_and_nothing_else_has_changed",
    HandingOutIsASave: "test_what_was_handed_out_is_due_again_later_and_nothing_else_has_changed",
    HandsOutToNobody: "test_what_was_handed_out_is_found_by_its_process",
    ParkingRewrites: "test_parking_marks_the_columns_alone",
    ParksWhateverIsThere: "test_only_what_was_read_is_marked",
    MarksStay: "test_a_save_clears_the_mark_and_the_tries",
    EverybodyLives: "test_a_process_lives_until_its_handle_is_closed",
    NamesAreShared: "test_a_living_process_keeps_its_name",
    SweepsTheLiving: "test_what_lives_never_expires",
    PrunesTheLiving: "test_pruning_forgets_the_old_entries_of_the_ended",
    HistoryOutlives: "test_an_id_used_again_is_another_instance",
    NoticesItselfOnly: "test_a_change_is_noticed_whoever_made_it",
    SetsTheTimeOfCreation: "test_uid_and_time_of_creation_stay",
    OpenAfterClosing: "test_a_closed_handle_is_unavailable",
}
