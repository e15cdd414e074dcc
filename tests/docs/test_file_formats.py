"""Every kind of file is documented, and what docs/file-formats.md shows of it keeps its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnas_core import schema
from nnas_core.workflows.validate import validate_file
from tests.docs.page_runner import ROOT, blocks, markdown_files

PAGE = "docs/file-formats.md"


def sections() -> dict[str, str]:
    """The sections of the page that are about a schema, by its name."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        kind = re.search(r"^Schema[^:]*: \[([a-z-]+)\]\(\.\./schemas/\1\.json\)", part, re.MULTILINE)
        if kind is not None:
            found[kind[1]] = part
    return found


def documents(text: str) -> Iterator[Any]:
    """Every JSON document that a section shows: in a block, as the output of a command, or as lines."""
    for shown in re.findall(r"^```(?:console|text|json)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for said in re.split(r"^\$ .*\n", shown, flags=re.MULTILINE):
            if said.startswith(("{\n", "[\n")):
                yield json.loads(said)
            elif said.startswith("{"):
                yield from map(json.loads, said.splitlines())


def test_every_schema_has_a_section_or_is_in_the_table_of_reports() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    reports = re.findall(r"^\| `[^|]+` \| \[([a-z-]+-report)\]\(\.\./schemas/\1\.json\) \|$", text, re.MULTILINE)
    assert sorted([*sections(), *reports]) == sorted(schema.kinds())


def test_what_a_section_shows_keeps_its_schema() -> None:
    shown = {kind: list(documents(text)) for kind, text in sections().items()}
    assert [kind for kind, found in shown.items() if not found] == []
    problems = [
        f"{kind}: {problem}"
        for kind in shown
        for document in shown[kind]
        for problem in schema.problems(kind, document)
    ]
    assert problems == []


def test_json_that_is_shown_anywhere_is_valid(tmp_path: Path) -> None:
    wrong = []
    for block in (block for file in markdown_files() for block in blocks(file) if block.language == "json"):
        file = tmp_path / "shown.json"
        file.write_text(block.text, encoding="utf-8")
        result = validate_file(str(file))
        if result.kind == "unknown" or result.problems:
            wrong.append(f"{block.where}: {result.kind}: {result.problems}")
    assert wrong == []
