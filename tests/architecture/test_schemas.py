"""Every schema is valid and says what it is of, and every example file of this repository keeps its schema."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from nnas_core import schema
from nnas_core.workflows.validate import validate_file
from tests.architecture.sources import ROOT

KINDS = sorted(file.stem for file in (ROOT / "schemas").glob("*.json"))


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


def test_a_schema_is_valid_against_its_metaschema() -> None:
    assert {raw(kind)["$schema"] for kind in KINDS} == {"https://json-schema.org/draft/2020-12/schema"}
    for kind in KINDS:
        Draft202012Validator.check_schema(raw(kind))


def test_a_schema_has_a_title_a_description_and_an_identity_of_its_own() -> None:
    documents = {kind: raw(kind) for kind in KINDS}
    assert [kind for kind, document in documents.items() if not document["title"]] == []
    assert [kind for kind, document in documents.items() if not document["description"].endswith(".")] == []
    assert [kind for kind, document in documents.items() if not document["$id"].endswith(f"/{kind}.json")] == []


def test_a_schema_requires_no_property_that_it_does_not_know() -> None:
    unknown = [
        f"{kind}: {name}"
        for kind in KINDS
        for node in objects(raw(kind))
        if node.get("additionalProperties") is False and isinstance(node.get("required"), list)
        for name in node["required"]
        if name not in node.get("properties", {})
    ]
    assert unknown == []


def test_a_schema_is_written_as_all_json_of_nnas_is_but_for_its_order() -> None:
    texts = {kind: (ROOT / "schemas" / f"{kind}.json").read_text(encoding="utf-8") for kind in KINDS}
    written = {kind: json.dumps(raw(kind), indent=2, ensure_ascii=False) + "\n" for kind in KINDS}
    assert [kind for kind in KINDS if texts[kind] != written[kind]] == []


def test_every_json_file_of_docs_and_examples_keeps_its_schema() -> None:
    folders = (ROOT / "docs", ROOT / "examples")
    files = sorted(file for folder in folders for suffix in ("*.json", "*.jsonl") for file in folder.rglob(suffix))
    results = [validate_file(str(file)) for file in files]
    assert [(one.file, one.problems) for one in results if one.problems or one.kind == "unknown"] == []
