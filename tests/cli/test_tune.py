"""``nnas tune``: inherited weights and training from scratch, limits, resuming, the answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nnas_core.plugins import registry
from nnas_core.study.storage.records import TrialRecord
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import MODEL, Cli

TUNE = ("tune", "model.py", "--checkpoint", "run/checkpoint.pt")
SCRATCH = ("tune", "model.py", "--train-epochs", 1, "--tuner", "random")

TUNER = """
from nnas_core import SearchSpace, Tuner
from nnas_core.tuners.base import NoMoreTrials


class Backwards(Tuner):
    '''The space from its end, every `step`-th architecture.'''

    def __init__(self, seed=0, optimize_mode="maximize", step=1):
        super().__init__(seed, optimize_mode)
        self.step = step

    def update_search_space(self, search_space):
        self.space = SearchSpace.from_json(search_space)

    def generate_parameters(self, parameter_id, **kwargs):
        place = self.space.size - 1 - parameter_id * self.step
        if place < 0:
            raise NoMoreTrials
        return self.space.at(place).parameters()

    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        pass
"""


@pytest.fixture(autouse=True)
def checkpoint(small_run: Path) -> None:
    """A supernet to inherit weights from."""


def trials(study: str = "model-bayes", file: str = "nnas.db") -> list[TrialRecord]:
    """What the store has."""
    with StudyStore.open(f"sqlite:///{file}", create=False) as store:
        return store.trials(store.study(study))


def test_the_best_architecture_goes_to_standard_output_and_the_table_to_standard_error(nnas: Cli) -> None:
    result = nnas(*TUNE, "--trials", 6)
    assert result.code == 0
    best = max(trials(), key=lambda trial: (trial.value or 0, -trial.number))
    assert result.json == best.architecture.masks()
    lines = result.err.splitlines()
    assert [re.sub(r"\d\.\d+", "N", line) for line in lines[:6]] == [f"trial {i}: N (N s)" for i in range(6)]
    rule = next(place for place, line in enumerate(lines) if line.startswith("─"))
    head = " ".join(lines[6:rule])
    named = ("trial", "validation,", "inherited", "weights", "(an", "estimate)", "parameters", "MACs", "architecture")
    assert set(head.split()) == set(named)
    shown = [line.split()[0] for line in lines[rule + 1 : rule + 6]]
    ranked = sorted(trials(), key=lambda trial: (-(trial.value or 0), trial.number))
    assert shown == [str(trial.number) for trial in ranked[:5]]
    assert lines[-2] == "6 trials, 0 failed; the number of trials is reached"
    assert lines[-1] == "next: nnas study export model-bayes --as-architecture | nnas retrain model.py --architecture -"


def test_o_gets_the_best_architecture(nnas: Cli) -> None:
    result = nnas(*TUNE, "--trials", 3, "-o", "best.json")
    assert (result.code, result.out) == (0, "")
    assert result.err.endswith(
        "3 trials, 0 failed; the number of trials is reached\nwrote best.json\n"
        "next: nnas retrain model.py --architecture best.json\n"
    )
    nnas.ok("validate", "best.json", "--space", "run/search_space.json")


def test_json_has_the_study_its_best_and_its_top(nnas: Cli) -> None:
    result = nnas(*TUNE, "--trials", 4, "--top", 2, "--json", "--seed", 5)
    assert (result.code, result.err) == (0, "")
    document = result.json
    assert (document["study"], document["seed"], document["tuner"]) == ("model-bayes", 5, "bayes")
    assert (document["finished"], document["failed"], document["recovered"]) == (4, 0, 0)
    assert document["best"] == document["top"][0]
    assert len(document["top"]) == 2
    assert document["measured_on"] == "validation data, inherited weights (an estimate)"


def test_equal_command_lines_give_equal_bytes(nnas: Cli) -> None:
    first = nnas.ok(*TUNE, "--trials", 5, "--json").out
    Path("nnas.db").unlink()
    assert nnas.ok(*TUNE, "--trials", 5, "--json").out == first


def test_the_metric_before_recalibration_is_recorded_beside_the_one_after(nnas: Cli) -> None:
    nnas.ok(*TUNE, "--trials", 4)
    for trial in trials():
        assert set(trial.metrics) == {"accuracy", "loss", "accuracy_before_recalibration", "loss_before_recalibration"}
        assert trial.value == trial.metrics["accuracy"]
    assert any(trial.metrics["loss"] != trial.metrics["loss_before_recalibration"] for trial in trials())


def test_recalibrate_0_uses_the_statistics_of_the_supernet(nnas: Cli) -> None:
    nnas.ok(*TUNE, "--trials", 4)
    nnas.ok(*TUNE, "--trials", 4, "--recalibrate", 0, "--study", "off")
    before = [trial.metrics["loss_before_recalibration"] for trial in trials()]
    assert [trial.metrics["loss"] for trial in trials("off")][:1] == before[:1]
    assert all(set(trial.metrics) == {"accuracy", "loss"} for trial in trials("off"))


def test_inherited_weights_give_what_evaluate_gives(nnas: Cli) -> None:
    nnas.ok(*TUNE, "--trials", 3)
    for trial in trials():
        result = nnas.ok(
            "evaluate",
            "model.py",
            "--checkpoint",
            "run/checkpoint.pt",
            "--architecture",
            "-",
            "--json",
            stdin=json.dumps(trial.architecture.masks()),
        )
        assert result.json["metrics"]["accuracy"] == trial.value


def test_from_scratch_each_trial_is_trained_as_retrain_does(nnas: Cli) -> None:
    nnas.ok(*SCRATCH, "--trials", 2)
    for trial in trials("model-random"):
        assert trial.cost["parameters"] > 0
        assert set(trial.metrics) == {"accuracy", "loss"}


def test_the_order_of_trials_from_scratch_does_not_matter(nnas: Cli) -> None:
    Path("mine.py").write_text(TUNER)
    nnas.ok(*SCRATCH[:4], "--tuner", "mine.py:Backwards", "--trials", 3, "--study", "one")
    nnas.ok(*SCRATCH[:4], "--tuner", "mine.py:Backwards", "--tuner-arg", "step=2", "--trials", 2, "--study", "two")
    one, two = trials("one"), trials("two")
    assert (two[1].architecture, two[1].metrics) == (one[2].architecture, one[2].metrics)


def test_a_tuner_of_the_users_own_ends_the_study_when_it_has_no_more(nnas: Cli) -> None:
    Path("mine.py").write_text(TUNER)
    result = nnas(*TUNE, "--tuner", "mine.py:Backwards", "--tuner-arg", "step=7", "--trials", 50)
    assert result.code == 0
    assert "\n3 trials, 0 failed; there are no more architectures to try\n" in result.err
    assert next(trial.architecture.indices() for trial in trials("model-mine")) == {
        "op": (2,),
        "act": (1,),
        "link": (2,),
    }


@pytest.mark.parametrize("tuner", ["random", "evolution"])
def test_a_study_ends_when_the_space_is_exhausted_and_no_architecture_comes_twice(nnas: Cli, tuner: str) -> None:
    result = nnas(*TUNE, "--tuner", tuner, "--trials", 100)
    assert result.code == 0
    assert "\n18 trials, 0 failed; there are no more architectures to try\n" in result.err
    assert len({trial.architecture.canonical for trial in trials(f"model-{tuner}")}) == 18


def test_duration_begins_no_trial_after_it(nnas: Cli) -> None:
    result = nnas(*TUNE, "--duration", "0.000001s")
    assert (result.code, result.out) == (5, "")
    assert result.err == "nnas: error: study 'model-bayes' has no finished trial: the time is used up\n"
    assert nnas(*TUNE, "--duration", "1h", "--trials", 2, "--resume").code == 0


def test_resume_goes_on_to_the_same_study_as_one_run(nnas: Cli) -> None:
    nnas.ok(*TUNE, "--trials", 12, "--study", "whole", "--tuner-arg", "num_init=4")
    for count in (3, 4, 12):
        result = nnas(
            *TUNE,
            "--trials",
            count,
            "--study",
            "parts",
            "--tuner-arg",
            "num_init=4",
            *(("--resume",) if count > 3 else ()),
        )
        assert result.code == 0
    assert result.err.startswith("study 'parts': 4 finished trials, 0 recovered\ntrial 4: ")
    assert [(t.architecture, t.value) for t in trials("parts")] == [(t.architecture, t.value) for t in trials("whole")]


def test_a_study_that_exists_is_not_begun_again(nnas: Cli) -> None:
    nnas.ok(*TUNE, "--trials", 1)
    result = nnas(*TUNE, "--trials", 1)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "nnas: error: nnas.db: a study named 'model-bayes' exists already\n"
        "hint: go on with it by --resume, or choose another --study name\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--train-epochs", 1, "--tuner-arg", "num_init=-1"), 2),
        (("--train-epochs", 1, "--tuner-arg", "num_init=-1", "--concurrency", 2), 2),
        (("--trial-command", "true", "--tuner", "evolution", "--tuner-arg", "population=0"), 2),
        (("--train-epochs", 1, "--model-arg", "width=nothing"), 4),
        (("--checkpoint", "none.pt"), 3),
        (("--train-epochs", 1, "--resume"), 3),
    ],
)
def test_a_study_that_cannot_begin_leaves_nothing_behind(nnas: Cli, arguments: tuple[object, ...], code: int) -> None:
    before = sorted(Path().rglob("*"))
    result = nnas("tune", "model.py", "--trials", 1, *arguments)
    assert (result.code, result.out) == (code, ""), result.err
    assert [path for path in sorted(Path().rglob("*")) if path not in before and "__pycache__" not in path.parts] == []


def test_a_study_that_does_not_exist_is_not_resumed(nnas: Cli) -> None:
    nnas.ok(*TUNE, "--trials", 1)
    result = nnas(*TUNE, "--trials", 1, "--study", "other", "--resume")
    assert (result.code, result.out) == (3, "")
    assert result.err == "nnas: error: nnas.db: no study is named 'other'\nhint: there are model-bayes\n"


def test_resume_with_other_options_names_each_that_differs(nnas: Cli) -> None:
    nnas.ok(*TUNE, "--trials", 1)
    changed = ("--seed", 2, "--batch-size", 3, "--recalibrate", 0, "--tuner-arg", "num_init=3")
    result = nnas(*TUNE, "--trials", 2, "--resume", *changed)
    assert (result.code, result.out) == (3, "")
    lines = result.err.splitlines()
    assert lines[0] == "nnas: error: nnas.db: study 'model-bayes' was made with other settings"
    assert lines[-1] == "hint: use the old ones, or start another study by --study NAME"
    assert len(lines) == 2 + 4
    for name in ("seed", "batch_size", "recalibrate", "num_init"):
        assert any(name in line for line in lines[1:-1]), name
    assert len(trials()) == 1


def test_the_smaller_metric_wins_where_the_module_says_so(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(
        MODEL + "\n\nmetric_mode = 'min'\n\n\ndef metrics(output, target):\n"
        "    return {'error': (output.argmax(1) != target).float().mean().item()}\n"
    )
    result = nnas(*TUNE, "--trials", 18, "--json", "--tuner", "random")
    assert result.code == 0
    values = [trial.value for trial in trials("model-random")]
    assert len(set(values)) > 1
    assert result.json["best"]["value"] == min(value for value in values if value is not None)


def test_a_trial_that_is_not_finite_fails_and_never_ranks(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(
        MODEL.replace('ops["deep"] = nn.Sequential(', 'ops["deep"] = nn.Sequential(Bad(), ').replace(
            "class Net",
            "class Bad(nn.Module):\n    def forward(self, x):\n        return x * float('nan')\n\n\nclass Net",
        )
    )
    result = nnas("tune", "model.py", "--train-epochs", 1, "--tuner", "random", "--trials", 18, "--json")
    assert result.code == 0
    found = trials("model-random")
    failed = [trial for trial in found if trial.state == "failed"]
    assert failed
    assert {trial.error for trial in failed} == {"the loss is not finite (nan) at step 1, epoch 1"}
    assert all(trial.architecture.names()["op"] == "deep" for trial in failed)
    assert result.json["failed"] == len(failed)
    assert result.json["best"]["architecture"]["op"] != [False, False, True]


def test_inherited_weights_that_give_no_finite_loss_fail_the_trial(nnas: Cli, small_model: Path) -> None:
    small_model.write_text(MODEL.replace("return self.head(", "return float('nan') * self.head("))
    result = nnas(*TUNE, "--trials", 3)
    assert (result.code, result.out) == (5, "")
    assert result.err.endswith(
        "nnas: error: study 'model-bayes' ends: 3 trials failed alike, and none has succeeded\n"
        "  trial 0: the loss on the validation data is not finite (nan)\n"
        "hint: mend the trials and go on with --resume; `nnas study retry model-bayes` tries those again that failed; "
        "--max-failures allows for more\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            (),
            2,
            (
                "give one of --checkpoint (inherited weights), --train-epochs (training from scratch) and "
                "--trial-command (a program)\nhint: a checkpoint comes from `nnas search`\n"
            ),
        ),
        (
            ("--train-epochs", 1, "--tuner", "evoluton"),
            2,
            (
                "no tuner is named 'evoluton'\nhint: did you mean 'evolution'? there are "
                f"{', '.join(registry.entries('tuners'))}, or one of your own as file.py:Class\n"
            ),
        ),
        (
            ("--train-epochs", 1, "--tuner-arg", "x=3"),
            2,
            "the tuner 'bayes' takes no argument 'x'\nhint: it takes num_init\n",
        ),
        (
            ("--train-epochs", 1, "--tuner-arg", "seed=3"),
            2,
            "tuner 'bayes': seed is not an argument, it comes from --seed\n",
        ),
        (
            ("--train-epochs", 1, "--study", "../x"),
            2,
            (
                "bad study name '../x'\nhint: use letters, digits, '.', '_' and '-', a letter or "
                "digit first, at most 100\n"
            ),
        ),
        (
            ("--train-epochs", 1, "--storage", "mysql://x"),
            2,
            (
                "studies cannot be stored in 'mysql'\nhint: give sqlite:///PATH or "
                "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE\n"
            ),
        ),
        (
            ("--train-epochs", 1, "--storage", "sqlite:///model.py"),
            3,
            "model.py: not a study database\nhint: choose another file for --storage\n",
        ),
        (("--train-epochs", 1, "--storage", "sqlite:///run"), 3, "run: is a directory, a file is needed\n"),
        (("--checkpoint", "none.pt"), 3, "none.pt: no such file\nhint: check the path\n"),
    ],
)
def test_what_cannot_work_is_refused_before_a_trial(
    nnas: Cli, arguments: tuple[object, ...], code: int, message: str
) -> None:
    result = nnas("tune", "model.py", *arguments)
    assert (result.code, result.out, result.err) == (code, "", f"nnas: error: {message}")


@pytest.mark.parametrize("text", ["5x", "0s", "-3", "", "1h30m"])
def test_a_duration_that_is_none_is_refused(nnas: Cli, text: str) -> None:
    result = nnas(*TUNE, "--duration", text)
    assert (result.code, result.out) == (2, "")
    assert f"{text!r} is no duration; give 90s, 30m, 2h or 1d" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--checkpoint", "run/checkpoint.pt", "--learning-rate", "1"),
            "--learning-rate does nothing with --checkpoint",
        ),
        (("--train-epochs", "1", "--recalibrate", "3"), "--recalibrate does nothing with --train-epochs"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    nnas: Cli, small_model: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = nnas("tune", "model.py", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"nnas: error: {message}\nhint: leave it out\n"


def test_a_study_goes_on_with_the_same_weights_wherever_they_are(nnas: Cli, small_run: Path) -> None:
    tune = ("tune", "model.py", "--tuner", "random", "--trials", "2", "-o", "best.json")
    nnas.ok(*tune, "--checkpoint", "run/checkpoint.pt")
    Path("copy.pt").write_bytes(Path("run/checkpoint.pt").read_bytes())
    nnas.ok(*tune, "--checkpoint", "copy.pt", "--resume")
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", "1", "--seed", "5", "-o", "run", "--force")
    result = nnas(*tune, "--checkpoint", "run/checkpoint.pt", "--resume")
    assert result.code == 3
    assert re.search(r'^  weights: "sha256:\w+" before, "sha256:\w+" now$', result.err, re.MULTILINE)
