"""The metering cores, for whoever asks for one; and how much the property tests try: the same
little in `make test`, a lot in `make fuzz`."""

from __future__ import annotations

import os

import pytest
import structlog
from hypothesis import HealthCheck, settings

from connector.core.interface import Core
from tests.cores import CORES

settings.register_profile("test", deadline=None, derandomize=True)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=20_000,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


@pytest.fixture(autouse=True)
def _no_correlation() -> None:
    """What one test binds for its log lines is not the next one's."""
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session", params=CORES)
def core(request: pytest.FixtureRequest) -> Core:
    """Each metering core that there is; a loud skip for one that was not built."""
    found: Core = request.param
    return found
