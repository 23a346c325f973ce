"""The ledger of a siege: a line that a kill has cut off hides no other."""

from pathlib import Path

from tests.crash.ledger import Ledger, read


def test_a_line_that_was_cut_off_is_none_and_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger(path, "i-1").note("ran", name="one")
    with path.open("ab") as file:
        file.write(b'\n{"what": "ran", "who": "i-2", "at": 10')  # killed here
    Ledger(path, "i-3").note("ran", name="three")
    assert [(line.who, line.name) for line in read(path)] == [("i-1", "one"), ("i-3", "three")]


def test_there_is_nothing_before_the_first_note(tmp_path: Path) -> None:
    assert list(read(tmp_path / "ledger")) == []
