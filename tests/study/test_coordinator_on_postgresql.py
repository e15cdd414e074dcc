"""Everything that ``test_coordinator.py`` says of studies holds for one in PostgreSQL."""

from __future__ import annotations

import pytest

from tests.study.test_coordinator import *  # noqa: F403

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url(postgres_url: str) -> str:
    """Where the store of the test is, instead of the file of other tests."""
    return postgres_url
