"""Each test of loading begins as a new process does: nobody's code has been loaded."""

from __future__ import annotations

import pytest

from nnas_core.plugins import loading


@pytest.fixture(autouse=True)
def no_code_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the folders whose code was called the user's in other tests."""
    monkeypatch.setattr(loading, "_user_folders", set())
