"""`make check` is what CI runs."""

import re

from tests.tidy.sources import ROOT


def test_make_check_and_ci_do_the_same() -> None:
    check = re.search(r"^check: ([a-z ]+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert check is not None
    in_ci = re.findall(r"^make ([a-z]+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert in_ci == ["setup", *check[1].split()]
    assert in_ci[-1] == "test", "the closing line of pytest is to be the last that is printed"
