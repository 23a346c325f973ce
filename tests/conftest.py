"""What all tests share: how Hypothesis searches, and what a missing server means."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

IN_CI = os.environ.get("CI", "").lower() == "true"

# No deadline and no complaint about slow generation: both measure the machine, which tests share with other work.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# A red run is due to the change under test, so the examples are the same in every run; `make laws` looks for new ones.
settings.register_profile("same", settings.get_profile("random"), derandomize=True, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test marked `server` into a failure under CI=true: a proof that was not run is none."""
    report = yield
    marker = item.get_closest_marker("server")
    if IN_CI and marker is not None and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"CI=true, and a server is missing: {', '.join(map(str, marker.args))}"
    return report
