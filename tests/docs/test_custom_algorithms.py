"""The algorithm of docs/custom-algorithms.md is as short as the page says, and keeps to what all mutators keep to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nnas_core.plugins.loading import load_class
from nnas_core.testing import MutatorConformance
from tests.docs.page_runner import Block, blocks

PAGE = {block.file_name: block for block in blocks("docs/custom-algorithms.md") if block.file_name is not None}


def loaded(block: Block) -> type:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "reinforce.py")
        path.write_text(block.text, encoding="utf-8")
        return load_class(f"{path}:ReinforceMutator")


class TestReinforce(MutatorConformance):
    mutator = loaded(PAGE["reinforce.py"])
    refuses = frozenset({"inputs: any", "inputs: two"})


def test_it_has_sixty_lines_at_most() -> None:
    assert len(PAGE["reinforce.py"].text.splitlines()) <= 60


def test_the_page_shows_the_same_refusals() -> None:
    assert 'refuses = frozenset({"inputs: any", "inputs: two"})' in PAGE["test_reinforce.py"].text
