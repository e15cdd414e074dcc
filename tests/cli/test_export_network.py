"""``nnas export`` with files of a network: each is used without nnas's help, and compared with the supernet."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from nnas_core import apply_fixed_architecture, schema
from nnas_core.errors import UserCodeError
from nnas_core.mutables.mutator import Mutator
from nnas_core.training.model import build_model
from nnas_core.training.settings import DataSettings, ModelReference, SetupSettings
from nnas_core.workflows.example_inputs import ExampleInputs
from nnas_core.workflows.setup import Setup
from tests.cli_support import MODEL, Cli

ARCHITECTURE = {"op": "deep", "act": "tanh", "link": "act"}


@pytest.fixture(autouse=True)
def files(small_run: Path, tmp_path: Path) -> None:
    """A supernet and an architecture of it."""
    (tmp_path / "a.json").write_text(json.dumps(ARCHITECTURE))


def supernet() -> torch.nn.Module:
    """The supernet with its weights, decided."""
    model, _ = build_model("model.py")
    model.load_state_dict(torch.load("run/checkpoint.pt", weights_only=True)["state"]["model"])
    apply_fixed_architecture(model, ARCHITECTURE)
    return model.eval()


def test_every_file_gives_the_outputs_of_the_supernet(nnas: Cli) -> None:
    written = ("--weights", "w.safetensors", "--exported", "m.pt2", "--onnx", "m.onnx", "--python", "net.py")
    report = nnas.ok("export", "run", "--architecture", "a.json", *written, "-o", "b.json", "--json").json
    assert schema.problems("export-report", report) == []
    assert [one["kind"] for one in report["files"]] == ["weights", "exported", "onnx", "python"]
    assert [one["bytes"] for one in report["files"]] == [Path(one["path"]).stat().st_size for one in report["files"]]
    # stem 4*8+8, norm 2*8, deep 2*(8*8+8), head 8*2+2; and their multiply-adds
    assert (report["parameters"], report["macs"]) == (218, 4 * 8 + 2 * 8 * 8 + 8 * 2)
    assert json.loads(Path("b.json").read_text()) == report["architecture"]
    state, trained = load_file("w.safetensors"), torch.load("run/checkpoint.pt", weights_only=True)["state"]["model"]
    assert torch.equal(state["op.0.weight"], trained["op.deep.0.weight"])
    assert torch.equal(state["norm.running_mean"], trained["norm.running_mean"])
    assert not any("linear" in name for name in state)
    alone = runpy.run_path("net.py")["build"]().eval()
    alone.load_state_dict(state)
    assert "nnas" not in Path("net.py").read_text()
    program = torch.export.load("m.pt2").module()
    session = onnxruntime.InferenceSession("m.onnx")
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("x", ["batch", 4])]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("output", ["batch", 2])]
    reference = supernet()
    for size in (1, 2, 7):
        x = torch.randn(size, 4, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            expected = reference(x)
        assert torch.equal(program(x), expected)
        assert torch.equal(alone(x), expected)
        assert np.allclose(session.run(None, {"x": x.numpy()})[0], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_the_weights_of_a_retraining(nnas: Cli) -> None:
    nnas.ok("retrain", "model.py", "--architecture", "a.json", "--epochs", 1, "-o", "final")
    Path("model.py").rename("moved.py")
    assert nnas("export", "final", "--weights", "w.pt").err == (
        "nnas: error: model.py: no such file\nhint: it is the model of the run: say with --model where it is now\n"
    )
    result = nnas.ok("export", "final", "--weights", "w.pt", "--model", "moved.py")
    lines = result.out.splitlines()
    assert lines[2].split()[0] == "w.pt"
    assert lines[2].endswith("equal to the trained network, to the bit")
    assert lines[-1] == "218 parameters, trained alone; 176 MACs of 1 sample"
    ours, theirs = (torch.load(file, weights_only=True) for file in ("w.pt", "final/weights.pt"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert nnas.ok("export", "final", "--format", "names").json == ARCHITECTURE
    Path("b.json").write_text(json.dumps({**ARCHITECTURE, "op": "skip"}))
    result = nnas("export", "final", "--architecture", "b.json", "--weights", "w.pt", "--model", "moved.py")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: b.json: is another architecture than the one that was trained alone\n"
        "hint: leave it out, or give the checkpoint of the search\n"
    )
    for name in ("weights.pt", "architecture.json", "search_space.json"):
        Path(f"final/{name}").rename("away")
        result = nnas("export", "final", "--format", "names")
        assert result.code == 3
        assert f"final/{name}: there is no such file, the run folder is not whole\n" in result.err
        Path("away").rename(f"final/{name}")


def test_a_document_has_the_cost_where_the_model_may_run(nnas: Cli) -> None:
    plain = nnas.ok("export", "run", "--format", "document").json
    document = nnas.ok("export", "run", "--architecture", "a.json", "--format", "document", "--model", "model.py").json
    assert schema.problems("architecture-document", document) == []
    assert document["cost"] == {"parameters": 218, "macs": 176}
    assert "cost" not in plain


def test_double_precision_is_kept(nnas: Cli) -> None:
    search = ("--mutator", "random", "--epochs", 1, "--precision", "float64", "-o", "double")
    nnas.ok("search", "model.py", *search)
    nnas.ok("export", "double", "--weights", "w.safetensors")
    assert load_file("w.safetensors")["stem.weight"].dtype == torch.float64


def test_a_buffer_in_double_precision_leaves_the_weights_in_single(nnas: Cli) -> None:
    double = 'self.register_buffer("scale", torch.ones(2, dtype=torch.float64))'
    text = MODEL.replace("        self.stem =", f"        {double}\n        self.stem =")
    Path("model.py").write_text(text.replace("return self.head(", "return (1 * self.scale).float() * self.head("))
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1, "-o", "mixed")
    nnas.ok("export", "mixed", "--weights", "w.pt")
    state = torch.load("w.pt", weights_only=True)
    assert (state["stem.weight"].dtype, state["scale"].dtype) == (torch.float32, torch.float64)


LOADERS = """

def build_dataloaders(batch_size, workers):
    from torch.utils.data import DataLoader

    return {name: DataLoader(train_dataset(), 5) for name in ("train", "valid")}
"""


def test_loaders_with_batches_of_their_own_size(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(MODEL + LOADERS)
    setup = Setup(SetupSettings(model=ModelReference(str(file), {}, None), data=DataSettings(), device="cpu"))
    inputs = ExampleInputs(setup, setup.model, None, Mutator(setup.model))
    whole = inputs.of(5)[0][0]
    assert isinstance(whole, torch.Tensor)
    for size in (1, 2, 3):
        (first,) = inputs.of(size)[0]
        assert isinstance(first, torch.Tensor)
        assert torch.equal(first, whole[:size])
    with pytest.raises(UserCodeError, match="build_dataloaders\\(\\) gives batches of 5, fewer than 6"):
        inputs.of(6)


BRANCH = """

class Branch(nn.Module):
    def forward(self, x):
        return -x if x.sum() > 0 else x
"""


def test_what_cannot_be_made_is_named_and_the_others_are_kept(nnas: Cli) -> None:
    head, tail = MODEL.split("\n\nclass Net")
    Path("model.py").write_text(f"{head}{BRANCH}\n\nclass Net{tail}".replace("relu=nn.ReLU()", "relu=Branch()"))
    nnas.ok("search", "model.py:Net", "--mutator", "random", "--epochs", 1, "-o", "other")
    Path("b.json").write_text(json.dumps({**ARCHITECTURE, "act": "relu"}))
    Path("m.pt2").write_text("old")
    files = ("--weights", "w.pt", "--exported", "m.pt2", "--onnx", "m.onnx")
    result = nnas("export", "other", "--architecture", "b.json", *files)
    assert (result.code, result.out) == (4, "")
    error, exported, onnx, hint = result.err.splitlines()[-4:]
    assert error == "nnas: error: 2 files could not be made, written: w.pt"
    assert exported.startswith("  --exported: act: torch.export cannot trace it: GuardOnDataDependentSymNode: ")
    assert onnx.startswith("  --onnx: act: torch.export cannot trace it: ")
    assert hint == "hint: let forward() decide nothing by the values of tensors, nor by the size of the batch"
    assert Path("m.pt2").read_text() == "old"
    assert "op.0.weight" in torch.load("w.pt", weights_only=True)
    assert not Path("m.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--weights", "w.bin"), 2, "'w.bin' says no format of weights\nhint: let its name end in .safetensors, .pt"),
        (("--weights", "-"), 2, "'-' says no format of weights"),
        (("--exported", "-"), 2, "a network is written to files, not to standard output"),
        (("--onnx", "m.onnx", "--exported", "m.onnx"), 2, "several outputs are to be written to one file"),
        (("--onnx", "m.onnx", "--exported", "./m.onnx"), 2, "several outputs are to be written to one file"),
        (("--weights", "w.pt", "-o", "run/../w.pt"), 2, "several outputs are to be written to one file"),
        (("--python", "model.py"), 2, "model.py is a file that the network is made of"),
        (("--weights", "run/checkpoint.pt"), 2, "run/checkpoint.pt is a file that the network is made of"),
        (("--onnx", "a.json"), 2, "a.json is a file that the network is made of"),
        (("--onnx", "m.onnx", "--opset", 17), 2, "17 is not in the range"),
        (("--onnx", "nowhere/m.onnx"), 6, "nowhere/m.onnx: cannot write: no such directory"),
        (("--opset", 19), 2, "--opset does nothing with no file for the network"),
        (("--input-shape", "4"), 2, "--input-shape does nothing with no file for the network"),
        (("--model", "model.py"), 2, "--model does nothing with no file for the network"),
        (("--weights", "w.pt", "--opset", 19), 2, "--opset does nothing with no --onnx"),
        (("--weights", "w.pt", "--format", "names"), 2, "--format does nothing with a network and no -o"),
        (("--weights", "w.pt", "--model", "gone.py"), 3, "gone.py: no such file"),
        (("--weights", "w.pt", "-a", "wide=3"), 2, "wrong model arguments: "),
        (("--weights", "w.pt", "-a", "width=3"), 3, "run/checkpoint.pt: the weights are of another model"),
        (("--weights", "w.pt", "--input-shape", "5"), 4, "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_bad_inputs(nnas: Cli, arguments: tuple[object, ...], code: int, message: str) -> None:
    result = nnas("export", "run", "--architecture", "a.json", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert "Traceback" not in result.err.split("nnas: error")[1]
    left = {path.name for path in Path.cwd().iterdir()} - {"__pycache__"}  # of the model, which was loaded
    assert left == {"model.py", "run", "a.json"}


def test_a_model_or_an_architecture_of_another_space(nnas: Cli) -> None:
    Path("other.py").write_text(MODEL.replace("tanh=nn.Tanh()", "gelu=nn.GELU()"))
    result = nnas("export", "run", "--weights", "w.pt", "--model", "other.py")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("nnas: error: run/checkpoint.pt: belongs to another search space\n  act: ")
    Path("b.json").write_text('{"op": "deep", "act": "gelu", "link": "act"}')
    result = nnas("export", "run", "--weights", "w.pt", "--architecture", "b.json")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("nnas: error: b.json: the architecture does not fit the search space\n  act: ")
    assert not Path("w.pt").exists()


def test_a_folder_without_its_checkpoint(nnas: Cli) -> None:
    Path("run/checkpoint.pt").unlink()
    result = nnas("export", "run")
    assert result.err == (
        "nnas: error: run/checkpoint.pt: there is no such file, the run folder is not whole\n"
        "hint: put it back, or run it again\n"
    )
    Path("empty").mkdir()
    assert "empty: holds no run of `nnas search` or `nnas retrain`" in nnas("export", "empty").err


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [(("--onnx", "m.onnx"), "onnxscript", "onnx"), (("--weights", "w.safetensors"), "safetensors", "safetensors")],
)
def test_a_missing_package_is_named(
    nnas: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], package: str, extra: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    result = nnas("export", "run", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"nnas: error: {package} is not installed\nhint: pip install 'nnas[{extra}]'\n"
