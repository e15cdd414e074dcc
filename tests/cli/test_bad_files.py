"""Damaged, foreign and malicious input files, and output that cannot be written."""

from __future__ import annotations

import os
import pickle
import re
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.test_resume import stopping
from tests.cli_support import MODEL, Cli, ForkServer

CHECKPOINT = "run/checkpoint.pt"


class Malicious:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch was-run",)


@pytest.fixture(autouse=True)
def run(small_run: Path) -> None:
    """A finished search."""


def changed(change: Callable[[dict[str, Any]], None]) -> None:
    """``bad.pt``: a checkpoint that was changed and saved again."""
    content = torch.load(CHECKPOINT, weights_only=True)
    change(content)
    torch.save(content, "bad.pt")


def flipped_bit() -> bytes:
    """The checkpoint with one bit of its largest tensor changed."""
    raw = bytearray(Path(CHECKPOINT).read_bytes())
    with zipfile.ZipFile(CHECKPOINT) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        place = raw.index(archive.read(largest), largest.header_offset)
    raw[place] ^= 1
    return bytes(raw)


NOT_ONE = "is not a checkpoint of nnas, or it is truncated"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", NOT_ONE),
        (lambda: b"hello", NOT_ONE),
        (lambda: b'{"op": [true]}', NOT_ONE),
        (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), NOT_ONE),
        (lambda: Path(CHECKPOINT).read_bytes()[:100], NOT_ONE),
        (lambda: Path(CHECKPOINT).read_bytes()[:-1], NOT_ONE),
        (lambda: Path(CHECKPOINT).read_bytes()[: os.path.getsize(CHECKPOINT) // 2], NOT_ONE),
        (lambda: pickle.dumps(Malicious()), NOT_ONE),
    ],
)
@pytest.mark.parametrize("command", ["export", "evaluate", "tune", "retrain", "resume"])
def test_what_is_no_checkpoint_is_refused_by_every_command(
    nnas: Cli, content: Callable[[], bytes], message: str, command: str
) -> None:
    commands: dict[str, tuple[str, ...]] = {
        "export": ("export", "bad.pt"),
        "evaluate": ("evaluate", "model.py", "--checkpoint", "bad.pt", "--architecture", "run/architecture.json"),
        "tune": ("tune", "model.py", "--checkpoint", "bad.pt"),
        "retrain": ("retrain", "model.py", "--checkpoint", "bad.pt", "--architecture", "run/architecture.json"),
        "resume": ("search", "--resume", "run"),
    }
    bad = CHECKPOINT if command == "resume" else "bad.pt"
    Path("run/checkpoint.previous.pt").unlink()  # else it is what goes on
    Path(bad).write_bytes(content())
    before = Path(bad).read_bytes()
    result = nnas(*commands[command])
    assert (result.code, result.out) == (3, "")
    assert result.err == f"nnas: error: {bad}: {message}\n"
    assert Path(bad).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["progress"].update(step=99), "the progress is another one than its header tells"),
        (lambda state: state["optimizer"]["param_groups"][0].update(lr="x"), "param_groups[0].lr is no finite number"),
    ],
    ids=["progress", "learning rate"],
)
def test_a_state_that_no_trainer_wrote_is_not_gone_on_with(
    nnas: Cli, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    Path("run/checkpoint.previous.pt").unlink()
    content = torch.load(CHECKPOINT, weights_only=True)
    change(content["state"])
    torch.save(content, CHECKPOINT)
    result = nnas("search", "--resume", "run")
    assert (result.code, result.out) == (3, "")
    assert message in result.err


def test_a_flipped_bit_is_found_by_its_checksum(nnas: Cli) -> None:
    Path("bad.pt").write_bytes(flipped_bit())
    result = nnas("export", "bad.pt")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("nnas: error: bad.pt: is damaged: checksum mismatch in ")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_not_run(nnas: Cli, legacy: bool) -> None:
    torch.save({"header": Malicious()}, "bad.pt", _use_new_zipfile_serialization=not legacy)
    for command in (("export", "bad.pt"), ("validate", "bad.pt"), ("tune", "model.py", "--checkpoint", "bad.pt")):
        result = nnas(*command)
        assert result.code == (1 if command[0] == "validate" else 3)
        assert "Traceback" not in result.err
        assert not Path("was-run").exists()
    if not legacy:
        assert nnas("export", "bad.pt").err == (
            "nnas: error: bad.pt: holds more than tensors and plain data: refused, nothing in it was run\n"
            "hint: take a checkpoint that nnas wrote\n"
        )


def set_header(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one field of the header."""
    return lambda content: content["header"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("header"), "is not a checkpoint of nnas (it has no header)\n"),
        (
            set_header("format", "nnas.checkpoint/9"),
            (
                "has the format 'nnas.checkpoint/9', this nnas reads 'nnas.checkpoint/1'\n"
                "hint: use the version of nnas that wrote it\n"
            ),
        ),
        (set_header("threads", "many"), "not a checkpoint header\n  $.threads: 'many' is not of type 'integer'\n"),
        (
            lambda content: content["state"]["model"].update(x=torch.eye(3).to_sparse()),
            "the tensor state.model.x is not dense\n",
        ),
        (
            lambda content: content["state"]["model"].update(x=torch.zeros(1).expand(2**40)),
            "the tensor state.model.x claims more elements than are stored\n",
        ),
    ],
)
def test_a_file_of_torch_that_is_no_checkpoint_of_ours_is_refused(
    nnas: Cli, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    changed(change)
    result = nnas("export", "bad.pt")
    assert (result.code, result.out, result.err) == (3, "", f"nnas: error: bad.pt: {message}")


def test_two_problems_of_a_header_are_both_listed(nnas: Cli) -> None:
    changed(lambda content: content["header"].update(seed="x", threads=0))
    result = nnas("export", "bad.pt")
    assert (result.code, result.out) == (3, "")
    assert result.err.splitlines()[1:] == [
        "  $.seed: 'x' is not of type 'integer'",
        "  $.threads: 0 is less than the minimum of 1",
    ]


def test_a_directory_gets_the_name_of_the_file_in_it(nnas: Cli) -> None:
    result = nnas("evaluate", "model.py", "--checkpoint", "run", "--architecture", "run/architecture.json")
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run: is a directory, a checkpoint file is needed\nhint: did you mean run/checkpoint.pt?\n"
    )


def test_a_checkpoint_cannot_come_from_standard_input(nnas: Cli) -> None:
    result = nnas("export", "-", stdin=Path(CHECKPOINT).read_bytes())
    assert (result.code, result.out) == (2, "")
    assert result.err == ("nnas: error: a checkpoint cannot come from standard input\nhint: give the path of a file\n")


OTHER_SPACE = (
    "nnas: error: run/checkpoint.pt: belongs to another search space\n"
    "  act: layer_choice of [relu, sig, tanh] in the model, layer_choice of [relu, tanh] in the checkpoint\n"
    "  link: input_choice of [, act] with n_chosen 1 in the model, "
    "input_choice of [, op, act] with n_chosen 1 in the checkpoint\n"
    "  more: only in the model\n"
    "hint: take the checkpoint of this model, and the same --model-arg as then\n"
)


@pytest.mark.parametrize("command", ["evaluate", "tune"])
def test_model_and_checkpoint_of_other_spaces_are_compared_key_by_key(nnas: Cli, command: str) -> None:
    text = MODEL.replace('"", "op", "act"', '"", "act"').replace(
        "relu=nn.ReLU(), tanh", "relu=nn.ReLU(), sig=nn.Sigmoid(), tanh"
    )
    Path("other.py").write_text(
        text.replace("self.head =", 'self.more = LayerChoice([nn.ReLU()], key="more")\n        self.head =')
    )
    extra = ("--architecture", "run/architecture.json") if command == "evaluate" else ()
    result = nnas(command, "other.py", "--checkpoint", CHECKPOINT, *extra)
    assert (result.code, result.out) == (3, "")
    assert result.err == OTHER_SPACE


def test_weights_of_another_size_are_compared_by_shape(nnas: Cli) -> None:
    result = nnas("tune", "model.py", "-a", "width=16", "--checkpoint", CHECKPOINT)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: run/checkpoint.pt: the weights are of another model (13 differences)\n"
        "  stem.weight: shape [8, 4] in the checkpoint, shape [16, 4] in the model\n"
        "  stem.bias: shape [8] in the checkpoint, shape [16] in the model\n"
        "  norm.weight: shape [8] in the checkpoint, shape [16] in the model\n"
        "  and 10 more\n"
        "hint: give the --model-arg that the checkpoint was made with\n"
    )


# ---- JSON


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.json:1:1: is empty, JSON is needed\n"),
        (b'{"op": ', "a.json:1:8: not JSON: expecting value\n"),
        (b'{"op": [true,\n  false,]}', "a.json:2:9: not JSON: "),
        (b'{"op": NaN}', "a.json: not JSON: NaN is not a number that JSON knows\n"),
        (b'{"op": 1, "op": 2}', "a.json: not JSON: the name 'op' stands twice in one object\n"),
        (b"\xff\xfe", "a.json: not UTF-8 text (byte 0)\n"),
        (b"[" * 100_000, "a.json: not a document of ours: nested too deeply\n"),
        (b"[1, 2]", "a.json: an architecture is an object of keys, not a list\n"),
        (b"3", "a.json: an architecture is an object of keys, not "),
    ],
)
@pytest.mark.parametrize("command", ["export", "retrain", "evaluate"])
def test_an_architecture_that_is_no_json_of_ours_is_refused_with_its_place(
    nnas: Cli, content: bytes, message: str, command: str
) -> None:
    commands: dict[str, tuple[str, ...]] = {
        "export": ("export", CHECKPOINT),
        "retrain": ("retrain", "model.py", "-o", "final"),
        "evaluate": ("evaluate", "model.py", "--checkpoint", CHECKPOINT),
    }
    Path("a.json").write_bytes(content)
    result = nnas(*commands[command], "--architecture", "a.json")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"nnas: error: {message}")
    assert len(result.err.splitlines()) <= 2


def test_a_directory_is_no_architecture(nnas: Cli) -> None:
    result = nnas("export", CHECKPOINT, "--architecture", "run")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: run: is a directory, a file is needed\n"


# ---- output

UNWRITABLE = [
    ("run", "it is a directory", "give the name of a file"),
    ("nothing/a.json", "no such directory", "create the directory first"),
    ("model.py/a.json", "a part of the path is not a directory", "check the path"),
    ("/sys/a.json", "permission denied", "choose a place that you may write to"),
    ("/dev/full", "no space left on the device", "free some space and run the command again"),
]


@pytest.mark.parametrize(("path", "reason", "hint"), UNWRITABLE)
def test_output_that_cannot_be_written_is_an_environment_failure(nnas: Cli, path: str, reason: str, hint: str) -> None:
    result = nnas("export", CHECKPOINT, "-o", path)
    assert (result.code, result.out) == (6, "")
    assert result.err == f"nnas: error: {path}: cannot write: {reason}\nhint: {hint}\n"


def test_a_device_is_written_to_and_not_replaced(nnas: Cli) -> None:
    before = os.stat("/dev/null")
    result = nnas("export", CHECKPOINT, "-o", "/dev/null")
    assert (result.code, result.out, result.err) == (0, "", "wrote /dev/null\n")
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    assert os.stat("/dev/null").st_ino == before.st_ino


@pytest.mark.parametrize("command", ["search", "retrain"])
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("model.py", "a file of that name is in the way"),
        ("model.py/run", "a part of the path is not a directory"),
        ("/sys/run", "(operation not permitted|permission denied)"),  # for root, for others
    ],
)
def test_a_run_folder_that_cannot_be_written_is_refused_before_training(
    nnas: Cli, command: str, folder: str, reason: str
) -> None:
    extra = ("--mutator", "random") if command == "search" else ("--architecture", "run/architecture.json")
    result = nnas(command, "model.py", *extra, "-o", folder)
    assert (result.code, result.out) == (6, "")
    assert re.fullmatch(rf"nnas: error: {folder}: cannot write: {reason}\nhint: .*\n", result.err)


def test_a_link_is_kept_and_what_it_points_to_replaced(nnas: Cli) -> None:
    Path("real.json").write_text("old")
    Path("link.json").symlink_to("real.json")
    nnas.ok("export", CHECKPOINT, "-o", "link.json")
    assert Path("link.json").is_symlink()
    assert Path("real.json").read_text() == Path("run/architecture.json").read_text()


def test_a_full_disk_leaves_the_old_file(forks: ForkServer, nnas: Cli, tmp_path: Path) -> None:
    Path("a.json").write_text("precious")
    result = forks.run(tmp_path, "export", CHECKPOINT, "-o", "a.json", file_limit=20)
    assert result.code == 6
    assert Path("a.json").read_text() == "precious"
    assert not list(tmp_path.glob(".a.json*"))


def test_a_full_disk_leaves_the_last_checkpoint(forks: ForkServer, nnas: Cli, tmp_path: Path) -> None:
    stopping(signal.SIGINT, 4)
    assert (
        nnas("search", "model.py", "--mutator", "random", "--epochs", 9, "--batch-size", 16, "-o", "long").code == 130
    )
    before = Path("long/checkpoint.pt").read_bytes()
    result = forks.run(tmp_path, "search", "--resume", "long", file_limit=len(before) // 2)
    assert (result.code, result.out) == (6, "")
    assert result.err.splitlines()[-2:] == [
        "nnas: error: long/checkpoint.pt: cannot write: the file would be larger than is allowed here",
        "hint: raise the limit (ulimit -f), or choose another place",
    ]
    assert Path("long/checkpoint.pt").read_bytes() == before
    assert not list(Path("long").glob(".*.tmp"))
    assert nnas("search", "--resume", "long").code == 0
