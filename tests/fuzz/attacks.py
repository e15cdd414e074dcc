"""What is attacked: every kind of file by the commands that read it, and every option of every command.

An attack puts a changed file into the current folder, which ``prepare`` made, and returns the command line to try.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch

from nnas_cli.main import cli
from tests.cli_support import MODEL, Cli
from tests.fuzz.mutations import HOSTILE_TEXTS, changed_bytes, changed_checkpoint, changed_json, changed_lines

__all__ = ["ATTACKS", "PRECIOUS", "Attack", "prepare"]

Attack = Callable[[random.Random], list[str]]

STORE = "sqlite:///kept.db"
PRECIOUS = "old bytes"
"""What stands in ``old.json``, which no command that fails may change."""

CONFIG = """\
seed = 3
[search]
model = "model.py"
mutator = "random"
epochs = 1
batch_size = 32
learning_rate = 0.05
clip_grad = 5.0
drop_last = true
schedule = "cosine"
valid_fraction = 0.25
checkpoint_every = "20"
device = "cpu"
[search.model_arg]
width = 8
[tune]
tuner = "random"
trials = 1
duration = "1m"
[tune.tuner_arg]
[study.list]
storage = "sqlite:///kept.db"
"""


def prepare(nnas: Cli) -> None:
    """Makes one good file of each kind in ``good``, a run and a study; the current folder is empty before."""
    Path("model.py").write_text(MODEL)
    for mutator, folder in (("random", "run"), ("darts", "run-darts")):
        size = 32 if mutator == "random" else 8
        nnas.ok("search", "model.py", "--mutator", mutator, "--epochs", 1, "--batch-size", size, "-o", f"good/{folder}")
    good = Path("good")
    run = good / "run"
    for form in ("masks", "names", "indices", "parameters", "document"):
        nnas.ok("export", run / "checkpoint.pt", "--format", form, "-o", good / f"{form}.json")
    shutil.copy(run / "search_space.json", good / "space.json")
    shutil.copy(run / "search_space.json", "space.json")
    Path("program.py").write_text("import os\nopen(os.environ['NNAS_RESULT'], 'w').write('0.5')\n")
    nnas.ok("tune", "model.py", "--checkpoint", run / "checkpoint.pt", "--tuner", "random", "--trials", 4)
    Path("nnas.db").rename("kept.db")
    study = ("study", "export", "--storage", STORE)
    nnas.ok(*study, "-o", good / "results.json")
    nnas.ok(*study, "--format", "csv", "-o", good / "results.csv")
    space = json.loads((good / "space.json").read_text())
    names = {key: one["_value"] for key, one in space.items() if one["_type"] == "layer_choice"}
    rows = {key: dict.fromkeys(candidates, 1.5) for key, candidates in names.items()}
    (good / "latency.json").write_text(json.dumps({"format": "nnas.latency-table/1", "unit": "ms", "latencies": rows}))
    (good / "config.toml").write_text(CONFIG)
    Path("old.json").write_text(PRECIOUS)


def _changed(name: str, rng: random.Random) -> str:
    """Puts a changed copy of a good file into the current folder, and returns its name."""
    content = (Path("good") / name).read_bytes()
    change = rng.choice((changed_bytes, changed_json if name.endswith(".json") else changed_lines))
    bad = f"bad{Path(name).suffix}"
    Path(bad).write_bytes(change(content, rng))
    return bad


# ---- files


def _space(rng: random.Random) -> list[str]:
    bad = _changed("space.json", rng)
    study = ["--storage", "sqlite:///new.db", "--trials", "1", "--trial-command", "/no/such/program"]
    return rng.choice(
        (
            ["validate", bad],
            ["validate", "good/names.json", "--space", bad],
            ["tune", bad, *study, "--tuner", "random"],
            ["view", bad],
            ["view", bad, "--html", "page.html", "-o", "old.json"],
        )
    )


def _architecture(rng: random.Random) -> list[str]:
    bad = _changed(rng.choice(("masks.json", "names.json", "indices.json", "parameters.json", "document.json")), rng)
    weights = ["--checkpoint", "good/run/checkpoint.pt"]
    return rng.choice(
        (
            ["validate", bad],
            ["validate", bad, "--space", "space.json"],
            ["export", "good/run/checkpoint.pt", "--architecture", bad, "-o", "old.json"],
            ["evaluate", "model.py", *weights, "--architecture", bad, "--recalibrate", "0"],
            ["retrain", "model.py", "--architecture", bad, "--epochs", "1", "-o", "out"],
            ["view", bad, "-o", "old.json"],
            ["view", bad, "--space", "space.json", "--svg", "net.svg"],
        )
    )


def _latency(rng: random.Random) -> list[str]:
    bad = _changed("latency.json", rng)
    search = ["search", "model.py", "--mutator", "proxyless", "--epochs", "1", "-o", "out", "--latency-table", bad]
    view = ["view", "space.json", "--costs", bad]
    return rng.choice((["validate", bad], ["validate", bad, "--space", "space.json"], search, view))


def _results(rng: random.Random) -> list[str]:
    bad = _changed(rng.choice(("results.json", "results.csv")), rng)
    shutil.copy("kept.db", "study.db")
    return rng.choice(
        (["validate", bad], ["study", "import", bad, "--storage", "sqlite:///study.db", "-o", "old.json"])
    )


def _database(rng: random.Random) -> list[str]:
    Path("study.db").write_bytes(changed_bytes(Path("kept.db").read_bytes(), rng))
    verb = rng.choice(("list", "show", "trials", "top", "export", "backup", "retry", "import"))
    more = {"import": ["good/results.json"], "backup": ["-o", "copy.db"]}.get(verb, [])
    return rng.choice(
        (
            ["validate", "study.db"],
            ["study", verb, *more, *_ON_A_STUDY],
            ["study", verb, *more, *_ON_A_STUDY],
            ["view", *_ON_A_STUDY],
            ["assess", "model-random", "--checkpoint", "good/run/checkpoint.pt", *_FEW, *_ON_A_STUDY],
        )
    )


def _config(rng: random.Random) -> list[str]:
    bad = _changed(rng.choice(("config.toml", "run/config.json")), rng)
    search = ["search", "--config", bad, "--resume", "no-run"]
    return rng.choice((["study", "list", "--config", bad], search, ["search", "--config", bad, "-o", "out"], ["info"]))


def _run_folder(rng: random.Random) -> list[str]:
    shutil.copytree("good/run", "out")
    name = rng.choice(("config.json", "config.json", "events.jsonl", "search_space.json", "architecture.json"))
    file = Path("out") / name
    change = rng.choice((changed_bytes, changed_lines if name.endswith("l") else changed_json))
    file.write_bytes(change(file.read_bytes(), rng))
    more = rng.choice(([], ["--epochs", "2"], ["--derive", "2"]))
    view = ["view", "out", "--html", "page.html", "-o", "old.json"]
    assess = ["assess", "out", *_FEW]
    return rng.choice((["validate", str(file)], ["search", "--resume", "out", *more], view, ["view", "out"], assess))


def _checkpoint(rng: random.Random) -> list[str]:
    shutil.copytree(Path("good") / rng.choice(("run", "run-darts")), "out")
    bad = Path("out/checkpoint.pt")
    if rng.randrange(4):
        torch.save(changed_checkpoint(torch.load(bad, weights_only=True), rng), bad)
    else:
        bad.write_bytes(changed_bytes(bad.read_bytes(), rng))
    weights = ["--checkpoint", str(bad)]
    return rng.choice(
        (
            ["validate", str(bad)],
            ["export", str(bad), "-o", "old.json"],
            ["search", "--resume", "out", "--epochs", "2"],
            ["search", "--resume", "out"],
            ["assess", "out", *_FEW],
            ["evaluate", "model.py", *weights, "--architecture", "good/names.json", "--recalibrate", "0"],
            ["retrain", "model.py", *weights, "--architecture", "good/names.json", "--epochs", "1", "-o", "out-2"],
        )
    )


# ---- options

_TRAINED = ["--epochs", "1", "--batch-size", "32", "-o", "out"]
_ON_A_STUDY = ["--storage", "sqlite:///study.db"]
_FEW = ["--train", "0", "--random", "2"]
WORKING: dict[str, list[str]] = {
    "ss-gen": ["model.py"],
    "search": ["model.py", "--mutator", "random", *_TRAINED],
    "export": ["good/run/checkpoint.pt", "-o", "old.json"],
    "tune": ["model.py", "--checkpoint", "good/run/checkpoint.pt", "--tuner", "random", "--trials", "1", *_ON_A_STUDY],
    "retrain": ["model.py", "--architecture", "good/names.json", *_TRAINED],
    "evaluate": ["model.py", "--checkpoint", "good/run/checkpoint.pt", "--architecture", "good/names.json"],
    "validate": ["good/names.json"],
    "assess": ["good/run", *_FEW],
    "view": ["good/masks.json", "--space", "space.json"],
    "list": ["tuners"],
    "info": [],
    "study import": ["good/results.json", *_ON_A_STUDY],
    "study log": ["1", *_ON_A_STUDY],
    "study kill": ["1", *_ON_A_STUDY],
    "study update": ["--trials", "9", *_ON_A_STUDY],
    "study backup": ["-o", "copy.db", *_ON_A_STUDY],
    "study delete": ["model-random", "--yes", *_ON_A_STUDY],
}
"""Arguments with which each command works, of those of a study that need more than a study."""

_STARTS_PROCESSES = {"--detach", "--engine", "--ray-address", "--trial-log-dir", "--attempts", "--trial-timeout"}
_STARTS_PROCESSES |= {"--concurrency", "--trial-threads", "--workers", "--gpus", "--trial-command", "--assessor"}
_STARTS_PROCESSES |= {"--exported", "--onnx", "--seeds"}
_STARTS_PROCESSES |= {"--serve"}  # or goes on for ever
"""Options of which a good value takes seconds; only bad ones are tried."""

_BAD_ANYWHERE = ("\udcff", "a=\udcff", "sqlite:///\udcff.db")
_BAD_NUMBERS = ("nan", "1e30", "-1", "1" + "0" * 30, "9" * 5000, "\udcff", "-inf", "1.5x", "9" * 5000 + "h")


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name="nnas")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        elif command is not None:
            yield " ".join((*path, name)), command


def _option(rng: random.Random) -> list[str]:
    name, command = rng.choice(list(_commands(cli)))
    if name.startswith("study"):
        shutil.copy("kept.db", "study.db")
    given = [*name.split(), *WORKING.get(name, _ON_A_STUDY)]
    for _ in range(rng.choice((1, 1, 2))):
        parameter = rng.choice([one for one in command.params if "--help" not in one.opts])
        given += _with_bad_value(parameter, rng)
    return given


def _with_bad_value(parameter: click.Parameter, rng: random.Random) -> list[str]:
    if not isinstance(parameter, click.Option):
        return [rng.choice(HOSTILE_TEXTS)]
    option = rng.choice((*parameter.opts, *parameter.secondary_opts))
    if _STARTS_PROCESSES.intersection(parameter.opts):
        is_number = isinstance(parameter.type, click.IntRange)
        return [] if parameter.is_flag else [option, rng.choice(_BAD_NUMBERS if is_number else _BAD_ANYWHERE)]
    return [option] if parameter.is_flag or parameter.count else [option, rng.choice(HOSTILE_TEXTS)]


ALGORITHMS = {"mutator": ["search", "model.py", *_TRAINED], "tuner": WORKING["tune"], "assessor": WORKING["tune"]}


def _argument(rng: random.Random) -> list[str]:
    """An argument of an algorithm with a value that it may not have meant."""
    from nnas_core.plugins import entries

    kind = rng.choice(("mutator", "tuner"))
    entry = rng.choice(list(entries(f"{kind}s").values()))
    options = entry.options() or ()
    if not options:
        return _option(rng)
    value = rng.choice(
        ("NaN", "1e999", "1e30", "-1", "0", "-0.0", "1" + "0" * 30, "9" * 5000, '""', "null", "[1]", "1e14")
    )
    start = ["tune", *WORKING["tune"]] if kind == "tuner" else ALGORITHMS["mutator"]
    return [*start, f"--{kind}", entry.name, f"--{kind}-arg", f"{rng.choice(options).name}={value}"]


ATTACKS: dict[str, Attack] = {
    "space": _space,
    "architecture": _architecture,
    "latency": _latency,
    "results": _results,
    "database": _database,
    "config": _config,
    "run-folder": _run_folder,
    "checkpoint": _checkpoint,
    "option": _option,
    "argument": _argument,
}
