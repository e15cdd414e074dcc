"""``nnas ss-gen``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnas_core import schema
from tests.cli_support import MODEL, Cli, ForkServer

SPACE = {
    "act": {"_type": "layer_choice", "_value": ["relu", "tanh"]},
    "link": {"_type": "input_choice", "_value": {"candidates": ["", "op", "act"], "n_chosen": 1}},
    "op": {"_type": "layer_choice", "_value": ["linear", "skip", "deep"]},
}

HUGE = """
import torch.nn as nn
from nnas_core import LayerChoice


def build_model():  # 100 choices of 2 layers of 7,071 x 7,071 weights: 10^10 in all
    return nn.Sequential(*(LayerChoice([nn.Linear(7071, 7071), nn.Linear(7071, 7071)]) for _ in range(100)))
"""


def test_the_search_space_goes_to_standard_output(nnas: Cli, small_model: Path) -> None:
    result = nnas("ss-gen", "model.py")
    assert (result.code, result.err) == (0, "")
    assert result.out == json.dumps(SPACE, sort_keys=True, indent=2) + "\n"
    assert schema.problems("search-space", result.json) == []


def test_o_writes_the_same_bytes_to_a_file(nnas: Cli, small_model: Path) -> None:
    result = nnas("ss-gen", "model.py", "-o", "space.json")
    assert (result.code, result.out, result.err) == (0, "", "wrote space.json\n")
    assert Path("space.json").read_text() == nnas("ss-gen", "model.py").out


def test_v_shows_a_table_of_keys_paths_and_candidates_and_the_size(nnas: Cli, small_model: Path) -> None:
    result = nnas("ss-gen", "model.py", "-v")
    assert result.code == 0
    assert result.json == SPACE
    rows = [line.split() for line in result.err.splitlines()]
    assert rows[0] == ["key", "type", "paths", "candidates", "chosen"]
    assert ["op", "layer_choice", "op", "linear,", "skip,", "deep", "1"] in rows
    assert ["act", "layer_choice", "act", "relu,", "tanh", "1"] in rows
    assert result.err.endswith("3 keys, 18 architectures\n")


def test_the_table_has_all_paths_of_a_shared_key(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch.nn as nn\nfrom nnas_core import LayerChoice\n\n\ndef build_model():\n"
        "    return nn.Sequential(*(LayerChoice([nn.ReLU(), nn.Tanh()], key='same') for _ in range(3)))\n"
    )
    result = nnas("ss-gen", "model.py", "-v")
    assert result.code == 0
    assert ["same", "layer_choice", "0,", "1,", "2", "0,", "1", "1"] in [
        line.split() for line in result.err.splitlines()
    ]
    assert result.err.endswith("1 keys, 2 architectures\n")


def test_arguments_of_the_model_are_json_literals_or_text(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from collections import OrderedDict\nimport torch.nn as nn\nfrom nnas_core import LayerChoice\n\n\n"
        "def build_model(names, prefix, flag=False):\n"
        "    assert flag is True\n"
        "    return LayerChoice(OrderedDict((prefix + name, nn.ReLU()) for name in names), key='k')\n"
    )
    result = nnas("ss-gen", "model.py", "-a", 'names=["a", "b"]', "--model-arg", "prefix=x-", "-a", "flag=true")
    assert (result.code, result.err) == (0, "")
    assert result.json["k"]["_value"] == ["x-a", "x-b"]


def test_a_class_a_function_or_a_module_can_be_named(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL + "\n\ndef wide():\n    return Net(width=32)\n\n\nready = Net()\n")
    for name in ("Net", "wide", "ready"):
        assert nnas.ok("ss-gen", f"model.py:{name}").json == SPACE


def test_an_installed_module_can_be_named(nnas: Cli) -> None:
    result = nnas("ss-gen", "torch.nn:Linear", "-a", "in_features=2", "-a", "out_features=2")
    assert (result.code, result.out) == (4, "")
    assert result.err.startswith("nnas: error: Linear contains no mutables\n")


def test_what_lies_beside_the_model_can_be_imported(nnas: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "parts.py").write_text("OPS = ['a', 'b']\n")
    (folder / "model.py").write_text(
        "from collections import OrderedDict\nimport torch.nn as nn\n"
        "from nnas_core import LayerChoice\nfrom parts import OPS\n"
        "\n\n"
        "def build_model():\n"
        "    return LayerChoice(OrderedDict((name, nn.ReLU()) for name in OPS), key='k')\n"
    )
    assert nnas.ok("ss-gen", "project/model.py").json["k"]["_value"] == ["a", "b"]


def test_a_supernet_of_ten_billion_weights_takes_no_memory(forks: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "huge.py").write_text(HUGE)
    limit = 16 * 2**30  # bytes of address space; in float32 the weights would be 40 GB
    result = forks.run(tmp_path, "ss-gen", "huge.py", memory_limit=limit)
    assert result.code == 0, result.err
    assert len(result.json) == 100


def test_a_constructor_that_needs_numbers_is_run_again_with_real_tensors(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(
        MODEL.replace(
            "        self.norm = ", "        self.scale = self.stem.bias.abs().max().item()\n        self.norm = "
        )
    )
    assert nnas.ok("ss-gen", "model.py").json == SPACE


def test_equal_command_lines_give_equal_bytes_under_other_hash_seeds(nnas: Cli, small_model: Path) -> None:
    code = "import sys; from nnas_cli.main import entry; sys.exit(entry())"
    other = subprocess.run(
        [sys.executable, "-c", code, "ss-gen", "model.py", "-v"],
        cwd=small_model.parent,
        env={**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"},
        capture_output=True,
        check=True,
    )
    outputs = {other.stdout, nnas.ok("ss-gen", "model.py", "-v").out.encode()}
    assert outputs == {json.dumps(SPACE, sort_keys=True, indent=2).encode() + b"\n"}


def test_a_failed_run_leaves_the_old_file(nnas: Cli, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text("precious")
    (tmp_path / "broken.py").write_text("raise ValueError('no')\n")
    result = nnas("ss-gen", "broken.py", "-o", "space.json")
    assert (result.code, result.out) == (4, "")
    assert (tmp_path / "space.json").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["broken.py", "space.json"]


@pytest.mark.parametrize("value", ["width", "=3", "9x=3", ""])
def test_an_argument_that_is_no_assignment_is_refused(nnas: Cli, small_model: Path, value: str) -> None:
    result = nnas("ss-gen", "model.py", "-a", value)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"nnas: error: invalid value for '-a' / '--model-arg': {value!r} is not KEY=VALUE\n")
