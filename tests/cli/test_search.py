"""``nnas search``: what a run folder holds, and what decides it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnas_core import schema
from nnas_core.plugins import registry
from nnas_core.runs.checkpoint import read_checkpoint
from tests.cli_support import MODEL, Cli

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "--batch-size", 16)

MUTATOR = """
import torch
from nnas_core import Mutator


class First(Mutator):
    def __init__(self, model, position=0):
        super().__init__(model)
        self.position = position

    def sample_search(self):
        return {m.key: torch.arange(len(m)) == self.position for m in self.mutables}

    def sample_final(self):
        return self.sample_search()


class Plain:
    pass
"""


def weights(run: str) -> dict[str, torch.Tensor]:
    """The supernet's tensors in a run's checkpoint."""
    state: dict[str, torch.Tensor] = read_checkpoint(Path(run, "checkpoint.pt"))["state"]["model"]
    return state


def assert_same_result(one: str, other: str) -> None:
    """Equal to the bit: weights and architecture."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert Path(one, "architecture.json").read_bytes() == Path(other, "architecture.json").read_bytes()


def events(run: str) -> list[dict[str, Any]]:
    """The lines of events.jsonl."""
    return [json.loads(line) for line in Path(run, "events.jsonl").read_text().splitlines()]


def test_the_run_folder_holds_what_it_promises(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    promised = {
        "checkpoint.pt",
        "checkpoint.previous.pt",
        "events.jsonl",
        "config.json",
        "search_space.json",
        "architecture.json",
    }
    assert {path.name for path in Path("run").iterdir() if not path.name.startswith(".")} == promised
    assert nnas.ok("validate", *(f"run/{name}" for name in promised)).code == 0
    assert Path("run/search_space.json").read_text() == nnas.ok("ss-gen", "model.py").out


def test_the_default_folder_is_named_after_model_and_mutator(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH)
    assert Path("runs/model-random/checkpoint.pt").is_file()


def test_events_say_how_it_went(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run", "--seed", 4)
    found = events("run")
    assert [event["event"] for event in found] == ["started", "epoch", "epoch", "derived", "finished"]
    assert (found[0]["model"], found[0]["mutator"], found[0]["seed"]) == ("model.py", "random", 4)
    assert [(event["epoch"], event["step"]) for event in found[1:3]] == [(1, 3), (2, 6)]
    assert set(found[1]["train"]) == set(found[1]["valid"]) == {"loss", "accuracy"}
    assert found[4]["seconds"] > 0
    assert all(schema.problems("event", event) == [] for event in found)


def test_the_checkpoint_has_the_progress_and_the_architecture(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    header = read_checkpoint(Path("run/checkpoint.pt"))["header"]
    assert header["progress"] == {"epoch": 2, "epochs": 2, "batch": 0, "step": 6}
    assert header["architecture"] == json.loads(Path("run/architecture.json").read_text())
    assert (header["command"], header["model"], header["mutator"], header["seed"]) == (
        "search",
        "model.py",
        "random",
        0,
    )


def test_the_checkpoint_loads_with_weights_only(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    content = torch.load("run/checkpoint.pt", weights_only=True)
    assert content["state"]["model"]["stem.weight"].shape == (8, 4)


def test_equal_command_lines_give_equal_bytes(nnas: Cli, small_model: Path) -> None:
    first = nnas.ok(*SEARCH, "-o", "run", "--json").out
    kept = {name: Path("run", name).read_bytes() for name in ("architecture.json", "config.json", "search_space.json")}
    Path("run").rename("before")
    assert nnas.ok(*SEARCH, "-o", "run", "--json").out == first
    assert {name: Path("run", name).read_bytes() for name in kept} == kept
    assert_same_result("run", "before")


def test_another_seed_gives_other_weights_and_is_recorded(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    assert nnas.ok(*SEARCH, "-o", "other", "--seed", 1, "--json").json["seed"] == 1
    assert json.loads(Path("other/config.json").read_text())["search"]["seed"] == 1
    assert not torch.equal(weights("run")["stem.weight"], weights("other")["stem.weight"])


def test_config_json_gives_the_same_run_again(nnas: Cli, small_model: Path) -> None:
    options = ("--seed", 3, "-a", "width=6", "--learning-rate", 0.1, "--schedule", "none", "--drop-last")
    nnas.ok(*SEARCH, *options, "--clip-grad", 0, "--valid-fraction", 0.3, "--momentum", 0.5, "-o", "run")
    nnas.ok("search", "--config", "run/config.json", "-o", "again")
    assert_same_result("run", "again")
    assert Path("run/config.json").read_bytes() == Path("again/config.json").read_bytes()


def test_options_of_the_command_line_win_over_config_json(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    nnas.ok("search", "--config", "run/config.json", "--seed", 9, "-o", "again")
    before, after = (json.loads(Path(run, "config.json").read_text())["search"] for run in ("run", "again"))
    assert {name for name in before if before[name] != after[name]} == {"seed"}
    assert after["seed"] == 9


def test_a_mutator_of_the_users_own(nnas: Cli, small_model: Path) -> None:
    Path("mine.py").write_text(MUTATOR)
    command = ("search", "model.py", "--epochs", 1, "--mutator", "mine.py:First")
    nnas.ok(*command)
    found = json.loads(Path("runs/model-mine/architecture.json").read_text())
    assert found == {"op": [True, False, False], "act": [True, False], "link": [True, False, False]}
    nnas.ok(*command, "--mutator-arg", "position=1", "-o", "run")
    found = json.loads(Path("run/architecture.json").read_text())
    assert found == {"op": [False, True, False], "act": [False, True], "link": [False, True, False]}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--mutator", "radnom"),
            2,
            (
                "no mutator is named 'radnom'\n"
                f"hint: did you mean 'random'? there are {', '.join(registry.entries('mutators'))}, "
                "or one of your own as file.py:Class\n"
            ),
        ),
        (
            ("--mutator", "random", "--mutator-arg", "x=1"),
            2,
            "the mutator 'random' takes no argument 'x'\nhint: it takes none\n",
        ),
        (
            ("--mutator", "mine.py:First", "--mutator-arg", "place=1"),
            2,
            "the mutator 'mine.py:First' takes no argument 'place'\nhint: it takes position\n",
        ),
        (
            ("--mutator", "mine.py:Plain"),
            4,
            "mine.py:Plain: Plain is no Mutator\nhint: derive it from nnas_core.Mutator\n",
        ),
        (("--mutator", "mine.py:Frist"), 4, "mine.py: nothing is named 'Frist' in it\nhint: did you mean 'First'?\n"),
        (("--mutator", "mine.py:torch"), 4, "mine.py: torch is no class\n"),
        (
            ("--mutator", "none.py:First"),
            3,
            "none.py: no such file\nhint: give the path of a Python file, or package.module\n",
        ),
        (
            ("--mutator", "random", "--device", "tpu"),
            2,
            (
                "invalid value for '--device': no device is named 'tpu'; use auto, cpu, cuda or cuda:N\n"
                "hint: see `nnas search --help`\n"
            ),
        ),
        (
            ("--mutator", "random", "--checkpoint-every", "5q"),
            2,
            (
                "invalid value for '--checkpoint-every': '5q' is no cadence; give steps (500) or time (30s, 5m, 1h)\n"
                "hint: see `nnas search --help`\n"
            ),
        ),
    ],
)
def test_wrong_names_and_arguments_are_refused(
    nnas: Cli, small_model: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Path("mine.py").write_text(MUTATOR)
    result = nnas("search", "model.py", *arguments, "-o", "run")
    assert (result.code, result.out, result.err) == (code, "", f"nnas: error: {message}")
    assert not Path("run/config.json").exists()


def test_data_may_come_from_a_task_file(nnas: Cli, small_model: Path) -> None:
    before, after = MODEL.split("def data(")
    head = before.split("class Net")[0]
    Path("model.py").write_text(before)
    Path("task.py").write_text(f"{head}\n\ndef data({after}")
    result = nnas(*SEARCH, "-o", "run")
    assert (result.code, result.out) == (4, "")
    assert result.err == (
        "nnas: error: model.py: it defines no train_dataset()\n"
        "hint: define train_dataset() there, or name the file that does with --task FILE\n"
    )
    nnas.ok(*SEARCH, "-o", "run", "--task", "task.py")
    assert json.loads(Path("run/config.json").read_text())["search"]["task"] == "task.py"


def test_the_functions_beside_the_model_are_used(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(
        MODEL + "\n\ndef valid_dataset():\n    return data(8, 3)\n\n\n"
        "def loss(output, target):\n    return ((output[:, 0] - target) ** 2).mean()\n\n\n"
        "def metrics(output, target):\n    return {'error': (output[:, 0] - target).abs().mean().item()}\n\n\n"
        "def build_optimizer(parameters):\n    return torch.optim.Adam(parameters, lr=0.01)\n\n\n"
        "def build_scheduler(optimizer, total_steps):\n"
        "    return torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=total_steps)\n\n\n"
        "def forward_batch(model, batch):\n    x, y = batch\n    return model(x), y.float()\n"
    )
    result = nnas.ok(*SEARCH, "-o", "run", "--json")
    assert set(result.json["metrics"]) == {"loss", "error"}
    state = read_checkpoint(Path("run/checkpoint.pt"))["state"]
    assert "exp_avg" in next(iter(state["optimizer"]["state"].values()))  # Adam's
    assert state["progress"]["step"] == 2 * 4  # all 60 samples are trained on


def test_own_loaders_are_used(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(
        MODEL + "\n\ndef build_dataloaders(batch_size, workers):\n"
        "    make = lambda n, s: torch.utils.data.DataLoader(data(n, s), batch_size=batch_size, num_workers=workers)\n"
        "    return {'train': make(40, 1), 'valid': make(8, 2)}\n"
    )
    nnas.ok(*SEARCH, "-o", "run")
    assert read_checkpoint(Path("run/checkpoint.pt"))["state"]["progress"]["step"] == 2 * 3


def test_workers_do_not_change_the_result(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    nnas.ok(*SEARCH, "-o", "other", "--workers", 1)
    assert_same_result("run", "other")


def test_force_starts_over_in_the_same_folder(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run", "--seed", 1)
    result = nnas(*SEARCH, "-o", "run")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: run: the folder is not empty\n"
        "hint: go on with --resume, start over with --force, or choose another -o\n"
    )
    nnas.ok(*SEARCH, "-o", "run", "--force")
    nnas.ok(*SEARCH, "-o", "fresh")
    assert_same_result("run", "fresh")
    assert [event["event"] for event in events("run")] == ["started", "epoch", "epoch", "derived", "finished"]


def test_force_leaves_the_old_run_when_the_new_one_cannot_start(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "-o", "run")
    before = {path.name: path.read_bytes() for path in Path("run").glob("[!.]*")}
    small_model.write_text("raise ValueError('no')\n")
    assert nnas(*SEARCH, "-o", "run", "--force").code == 4
    assert {path.name: path.read_bytes() for path in Path("run").glob("[!.]*")} == before


def test_a_folder_that_is_not_ours_is_left_alone(nnas: Cli, small_model: Path) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("precious")
    assert nnas(*SEARCH, "-o", "thesis").code == 2
    assert [path.name for path in Path("thesis").iterdir()] == ["chapter.tex"]
