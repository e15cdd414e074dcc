"""What the documentation shows happens: every page's code and commands run in order, and say what is shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.docs.page_runner import ROOT, blocks, markdown_files, run_page

RUN = [file for file in markdown_files() if any(block.language in ("python", "console") for block in blocks(file))]


@pytest.mark.slow
@pytest.mark.global_random
@pytest.mark.parametrize("file", RUN)
def test_a_page_is_true(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # as in an active environment
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run_page(file, tmp_path)


def test_every_guide_is_among_the_pages_that_run() -> None:
    assert {
        "README.md",
        "docs/file-formats.md",
        "docs/model-modules.md",
        "docs/mutators.md",
        "docs/tour.md",
        "docs/trials.md",
        "docs/troubleshooting.md",
        "docs/tuners.md",
    } <= {*RUN}
