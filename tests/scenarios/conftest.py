from pathlib import Path

import pytest

from tests.scenarios.drivers import Play, player


@pytest.fixture
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Run a scenario in the way that the parameter names."""
    return player(request.param, tmp_path)
