"""The whole contract: what a driver's test class derives from."""

from tests.conformance.far import FarPromises
from tests.conformance.lists import FilterPromises, ListPromises, PagePromises
from tests.conformance.processes import ProcessPromises
from tests.conformance.retention import HistoryPromises, RetentionPromises
from tests.conformance.saves import BatchPromises, CrashPromises, DeletePromises, SavePromises
from tests.conformance.work import ChangePromises, DuePromises, UnreadablePromises


class StoreConformance(
    SavePromises,
    BatchPromises,
    CrashPromises,
    DeletePromises,
    ListPromises,
    PagePromises,
    FilterPromises,
    DuePromises,
    UnreadablePromises,
    ChangePromises,
    ProcessPromises,
    HistoryPromises,
    RetentionPromises,
    FarPromises,
):
    """The contract of `runner.stores.base.Store`. A driver gives `open_store` and passes everything, without a skip."""
