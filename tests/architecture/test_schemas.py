"""Every schema is valid, says what it is of, and every file that this repository shows as an example keeps its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from nnas_core import schema
from nnas_core.validation import validate_file
from tests.architecture.sources import ROOT

KINDS = sorted(file.stem for file in (ROOT / "schemas").glob("*.json"))
EXAMPLE_FILES = [
    str(file.relative_to(ROOT))
    for folder in ("docs", "examples", "tests", "benchmarks")
    for suffix in ("*.json", "*.jsonl")
    for file in sorted((ROOT / folder).rglob(suffix))
    if "results" not in file.parts  # of the benchmarks: no file of nnas
]


def raw(kind: str) -> dict[str, Any]:
    """A schema as it stands in its file."""
    document: dict[str, Any] = json.loads((ROOT / "schemas" / f"{kind}.json").read_text(encoding="utf-8"))
    return document


def objects(node: Any) -> list[dict[str, Any]]:
    """Every object in a schema."""
    if isinstance(node, dict):
        return [node, *(inner for value in node.values() for inner in objects(value))]
    return [inner for value in node for inner in objects(value)] if isinstance(node, list) else []


def test_the_installed_schemas_are_those_of_the_folder() -> None:
    assert list(schema.kinds()) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_valid_against_its_metaschema(kind: str) -> None:
    assert raw(kind)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(raw(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_has_a_title_a_description_and_an_identity_of_its_own(kind: str) -> None:
    document = raw(kind)
    assert document["title"]
    assert document["description"].endswith(".")
    assert document["$id"].endswith(f"/{kind}.json")


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_requires_no_property_that_it_does_not_know(kind: str) -> None:
    unknown = [
        name
        for node in objects(raw(kind))
        if node.get("additionalProperties") is False and isinstance(node.get("required"), list)
        for name in node["required"]
        if name not in node.get("properties", {})
    ]
    assert unknown == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_written_as_all_json_of_nnas_is_but_for_its_order(kind: str) -> None:
    text = (ROOT / "schemas" / f"{kind}.json").read_text(encoding="utf-8")
    assert text == json.dumps(raw(kind), indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("file", EXAMPLE_FILES)
def test_an_example_file_keeps_its_schema(file: str) -> None:
    result = validate_file(str(ROOT / file), kind=_kind_in_the_name(Path(file)))
    assert (result.kind != "unknown", result.problems) == (True, [])


def _kind_in_the_name(file: Path) -> str | None:
    """``docs/examples/study.json`` is a study: kinds that a file does not reveal by itself are its name."""
    return file.stem if file.stem in KINDS else None
