"""A test that misses its server is skipped on a developer's machine, and fails in CI."""

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
MISSING = """
import pytest

@pytest.mark.server("postgres")
def test_on_a_server():
    pytest.skip("no postgres")

@pytest.mark.server("postgres")
@pytest.mark.xfail
def test_of_a_broken_driver():
    raise AssertionError

def test_of_a_platform():
    pytest.skip("not on this platform")
"""


@pytest.mark.parametrize(
    "ci, expected",
    [
        ("true", {"failed": 1, "skipped": 1, "xfailed": 1}),
        ("", {"failed": 0, "skipped": 2, "xfailed": 1}),
    ],
)
def test_a_missing_server(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, expected: dict[str, int]) -> None:
    monkeypatch.setenv("CI", ci)
    pytester.makeini("[pytest]\nmarkers =\n    server(name): needs a server")
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(MISSING)
    pytester.runpytest_subprocess().assert_outcomes(**expected)
