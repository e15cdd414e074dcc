"""``nnas export``: from a checkpoint alone, in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnas_core import schema
from tests.cli_support import MODEL, Cli

MASKS = {"act": [False, True], "link": [False, False, True], "op": [False, False, True]}
FORMS: dict[str, Any] = {
    "masks": MASKS,
    "names": {"act": "tanh", "link": "act", "op": "deep"},
    "indices": {"act": [1], "link": [2], "op": [2]},
    "parameters": {
        "act": {"_value": "tanh", "_idx": 1},
        "link": {"_value": ["act"], "_idx": [2]},
        "op": {"_value": "deep", "_idx": 2},
    },
}


@pytest.fixture
def checkpoint(small_run: Path, small_model: Path) -> str:
    """A finished search, of which the model file is gone."""
    small_model.unlink()
    return "run/checkpoint.pt"


def test_the_architecture_goes_to_standard_output_as_masks(nnas: Cli, checkpoint: str) -> None:
    result = nnas("export", checkpoint)
    assert (result.code, result.err) == (0, "")
    assert result.out == Path("run/architecture.json").read_text()
    assert result.json.keys() == MASKS.keys()


def test_o_writes_the_same_bytes(nnas: Cli, checkpoint: str) -> None:
    result = nnas("export", checkpoint, "-o", "a.json")
    assert (result.code, result.out, result.err) == (0, "", "wrote a.json\n")
    assert Path("a.json").read_text() == nnas("export", checkpoint).out


@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("wanted", FORMS)
def test_every_form_becomes_every_other(nnas: Cli, checkpoint: str, given: str, wanted: str) -> None:
    result = nnas("export", checkpoint, "--architecture", "-", "--format", wanted, stdin=json.dumps(FORMS[given]))
    assert (result.code, result.err) == (0, "")
    assert result.json == FORMS[wanted]


@pytest.mark.parametrize(
    "given",
    [
        {"act": [0.0, 1.0], "link": [False, False, True], "op": [0.0, 0.0, 1.0]},
        {"act": "tanh", "link": ["act"], "op": 2},
        {
            "act": {"_value": "tanh", "_idex": 1},
            "link": {"_value": ["act"], "_idex": [2]},
            "op": {"_value": "deep", "_idex": 2},
        },
    ],
)
def test_older_and_mixed_forms_are_read(nnas: Cli, checkpoint: str, given: dict[str, Any]) -> None:
    Path("given.json").write_text(json.dumps(given))
    result = nnas("export", checkpoint, "--architecture", "given.json")
    assert (result.code, result.json, result.err) == (0, MASKS, "")


def test_zeros_and_ones_as_integers_are_indices_and_that_is_said(nnas: Cli, checkpoint: str) -> None:
    result = nnas("export", checkpoint, "--architecture", "-", stdin='{"act": [0, 1], "link": "act", "op": "deep"}')
    assert result.code == 0
    assert result.json == {**MASKS, "act": [True, True]}
    assert result.err.startswith("nnas: warning: act: ")
    assert len(result.err.splitlines()) == 1


def test_a_document_says_where_the_architecture_is_from(nnas: Cli, checkpoint: str) -> None:
    document = nnas.ok("export", checkpoint, "--format", "document").json
    assert schema.problems("architecture-document", document) == []
    assert document["format"] == "nnas.architecture/1"
    assert document["architecture"] == json.loads(Path("run/architecture.json").read_text())
    provenance = document["provenance"]
    assert (provenance["model"], provenance["mutator"], provenance["seed"]) == ("model.py", "random", 0)
    Path("document.json").write_text(json.dumps(document))
    again = nnas.ok("export", checkpoint, "--architecture", "document.json")
    assert again.json == document["architecture"]


def test_no_user_code_runs(nnas: Cli, checkpoint: str) -> None:
    Path("model.py").write_text("raise SystemExit('this was run')\n")
    for form in (*FORMS, "document"):
        assert nnas("export", checkpoint, "--format", form).code == 0


def test_soft_weights_have_masks_only(nnas: Cli, checkpoint: str) -> None:
    soft = json.dumps({"act": [0.25, 0.75], "link": [0.0, 0.0, 1.0], "op": [0.5, 0.5, 0.0]})
    result = nnas("export", checkpoint, "--architecture", "-", stdin=soft)
    assert (result.code, result.err) == (0, "")
    assert result.json == json.loads(soft)
    result = nnas("export", checkpoint, "--architecture", "-", "--format", "names", stdin=soft)
    assert (result.code, result.out) == (3, "")
    assert "Traceback" not in result.err


def test_an_unknown_form_is_refused(nnas: Cli, checkpoint: str) -> None:
    result = nnas("export", checkpoint, "--format", "onyx")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: invalid value for '--format': 'onyx' is not one of 'masks', 'names', ")


def test_a_checkpoint_of_a_plain_model_has_no_architecture(nnas: Cli, small_model: Path) -> None:
    Path("a.json").write_text(json.dumps(MASKS))
    nnas.ok("retrain", "model.py", "--architecture", "a.json", "--epochs", 1, "-o", "final")
    result = nnas("export", "final/checkpoint.pt")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: final/checkpoint.pt: has no architecture: it is of a plain model\n"
        "hint: take one of `nnas search`, or the folder of the run\n"
    )


def test_an_architecture_of_another_space_is_refused_with_all_its_problems(nnas: Cli, checkpoint: str) -> None:
    Path("a.json").write_text('{"op": "linear", "act": 5, "lnk": [true]}')
    result = nnas("export", checkpoint, "--architecture", "a.json")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: a.json: the architecture does not fit the search space\n"
        "  unexpected keys found: 'lnk'\n"
        "  missing keys: 'link'\n"
        "  act: index 5 is out of range; expected a name among 'relu', 'tanh', an index below 2, or a mask of 2\n"
        "hint: compare it with the output of `nnas ss-gen`\n"
    )


def test_json_changes_nothing_for_an_answer_that_is_json(nnas: Cli, checkpoint: str) -> None:
    assert nnas("export", checkpoint, "--json").out == nnas("export", checkpoint).out


def test_export_needs_no_weights_of_the_model(nnas: Cli, checkpoint: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    torch.save({"header": content["header"], "state": {}}, "small.pt")
    assert nnas.ok("export", "small.pt").out == nnas.ok("export", checkpoint).out


def test_names_that_stand_twice_are_told_apart(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL.replace('choose_from=["", "op", "act"]', "n_candidates=3"))
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1, "-o", "run")
    names = nnas.ok("export", "run/checkpoint.pt", "--format", "names").out
    again = nnas.ok("export", "run/checkpoint.pt", "--architecture", "-", stdin=names).out
    assert again == Path("run/architecture.json").read_text()
