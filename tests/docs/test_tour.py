"""The tour in README.md is true: its commands run as they stand and say what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, run_page


@pytest.mark.slow
@pytest.mark.global_random
def test_the_commands_of_the_readme_say_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run_page("README.md", tmp_path)
