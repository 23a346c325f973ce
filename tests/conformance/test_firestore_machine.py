"""The same random operations on Firestore and on a plain dictionary."""

import secrets

import pytest
from hypothesis import settings

from runner.stores.base import Store
from runner.stores.firestore import FirestoreStore
from tests.property.test_store_machine import StoreMachine
from tests.servers.firestore import COLLECTION, SERVER, VARIABLE, emulator


class FirestoreMachine(StoreMachine):
    def __init__(self) -> None:
        self.url = f"demo-{secrets.token_hex(6)}/{COLLECTION}"
        super().__init__()

    def open_handle(self) -> Store:
        return FirestoreStore(self.url)


# Each operation goes over a socket to another process: about 15 s in a plain run.
FirestoreMachine.TestCase.settings = settings(settings(), max_examples=max(8, settings().max_examples // 6), stateful_step_count=30)


@SERVER
@pytest.mark.slow
class TestFirestore(FirestoreMachine.TestCase):  # type: ignore[misc, valid-type]
    @pytest.fixture(autouse=True)
    def on_the_emulator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, emulator())
