"""``nnas tune --trial-command``: what a program finds and leaves, and what happens when it does not behave."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from nnas_core.study.storage.store import StudyStore
from tests.cli.trial_programs import COMMAND, errors, program, stored, tune, write_files
from tests.cli_support import Cli


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    write_files(tmp_path)


def test_the_best_of_a_search_space_is_found_by_a_program(nnas: Cli) -> None:
    result = tune(nnas)
    assert result.code == 0
    assert result.json == {"op": [False, False, True], "n": [False, False, True]}
    lines = result.err.splitlines()
    values = {
        trial.number: 10 * trial.architecture.indices()["op"][0] + trial.architecture.indices()["n"][0]
        for trial in stored()
    }
    assert [re.sub(r" \(\d+\.\d\d s\)$", "", line) for line in lines[:9]] == [
        f"trial {i}: {values[i]}" for i in range(9)
    ]
    assert lines[9].split("  ")[0] == "trial"
    assert "reported by the trial command" in lines[9]
    assert lines[11].split()[1:] == ["22", "n=3", "op=c"]
    assert lines[-1] == "next: nnas study trials space-grid --head 5"
    assert lines[-2] == "9 trials, 0 failed; the number of trials is reached"


def test_the_smaller_result_wins_where_the_command_line_says_so(nnas: Cli) -> None:
    result = tune(nnas, "--optimize-mode", "minimize", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["best"]["value"] == 0
    assert [trial["value"] for trial in result.json["top"]] == [0, 1, 2, 10, 11]
    assert result.json["measured_on"] == "reported by the trial command"


def test_the_search_space_may_be_that_of_a_model(nnas: Cli, small_model: Path) -> None:
    Path("trial.py").write_text(
        "import json, os\nparameters = json.load(open(os.environ['NNAS_PARAMETERS']))\n"
        "right = [parameters['op']['_value'] == 'skip', parameters['link']['_value'] == ['act']]\n"
        "json.dump(sum(right), open(os.environ['NNAS_RESULT'], 'w'))\n"
    )
    arguments = ("-a", "width=4", "--tuner", "grid", "--trials", 18, "--json")
    result = nnas.ok("tune", "model.py", "--trial-command", COMMAND, *arguments).json
    assert result["study"] == "model-grid"
    assert result["best"]["value"] == 2
    assert result["best"]["architecture"]["op"] == [False, True, False]
    assert result["best"]["architecture"]["link"] == [False, False, True]


def test_equal_command_lines_give_equal_bytes(nnas: Cli) -> None:
    first = tune(nnas, "--json", trials=3).out
    Path("nnas.db").unlink()
    assert tune(nnas, "--json", trials=3).out == first != ""


@pytest.mark.parametrize(
    ("arguments", "folder"), [((), "runs/studies/space-grid/trials"), (("--trial-log-dir", "x/y"), "x/y")]
)
def test_each_attempt_has_a_folder_with_its_files_and_its_output(
    nnas: Cli, arguments: tuple[str, ...], folder: str
) -> None:
    program("print('said', os.environ['NNAS_TRIAL_DIR'], flush=True); print('louder', file=sys.stderr)")
    tune(nnas, *arguments, trials=2)
    assert sorted(path.name for path in Path(folder).iterdir()) == ["0-1", "1-1"]
    first = Path(folder, "0-1")
    assert sorted(path.name for path in first.iterdir()) == ["log.txt", "parameters.json", "result.json"]
    assert json.loads((first / "parameters.json").read_text()) == stored()[0].architecture.parameters()
    assert (first / "log.txt").read_text() == f"said {first.resolve()}\nlouder\n"


def test_no_shell_runs_the_command(nnas: Cli) -> None:
    program("print(sys.argv[1:])")
    tune(nnas, trials=1, command=f"{COMMAND} 'a b' $HOME; *")
    assert Path("runs/studies/space-grid/trials/0-1/log.txt").read_text() == "['a b', '$HOME;', '*']\n"


def test_two_trials_run_at_once(nnas: Cli) -> None:
    program("meet(trial ^ 1)")  # one alone would wait for ever
    assert tune(nnas, "--concurrency", 2, trials=4).code == 0


def test_each_trial_gets_a_gpu_of_those_that_are_visible(nnas: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5")
    program("print(os.environ['CUDA_VISIBLE_DEVICES']); meet(trial ^ 1)")
    assert tune(nnas, "--gpus", "1,2", trials=2).code == 0
    used = {Path(f"runs/studies/space-grid/trials/{trial}-1/log.txt").read_text() for trial in (0, 1)}
    assert used == {"3\n", "5\n"}


def test_a_trial_that_takes_too_long_fails_and_the_others_go_on(nnas: Cli) -> None:
    program("if trial == 1: signal.pause()")
    result = tune(nnas, "--trial-timeout", "3s", trials=3)
    assert result.code == 0
    assert "trial 1: failed: timed out after 3 s (" in result.err
    assert errors() == {1: "timed out after 3 s"}


def test_a_trial_that_is_killed_begins_again(nnas: Cli) -> None:
    program("if trial == 1 and attempt < 3: os.kill(os.getpid(), signal.SIGKILL)")
    result = tune(nnas, trials=2)
    assert result.code == 0
    again = [line for line in result.err.splitlines() if "attempt" in line]
    assert again == [f"trial 1: killed by signal 9 (out of memory?); attempt {number} begins" for number in (2, 3)]
    assert [(trial.state, trial.attempt) for trial in stored()] == [("succeeded", 1), ("succeeded", 3)]


def test_a_trial_that_is_always_killed_fails_after_the_attempts(nnas: Cli) -> None:
    program("if trial == 1: os.kill(os.getpid(), signal.SIGSEGV)")
    assert tune(nnas, "--attempts", 2, trials=3).code == 0
    assert errors() == {1: "killed by signal 11 (SIGSEGV) 2 times"}


def test_a_trial_that_ends_by_itself_without_a_result_fails_at_once_with_its_last_words(nnas: Cli) -> None:
    program("if trial == 1: sys.exit('no such data')\nif trial == 2: sys.exit()")
    assert tune(nnas, trials=3).code == 0
    assert errors() == {
        1: "no result (exit 1): no such data",
        2: "no result (exit 0): the program wrote no file NNAS_RESULT and did not call report_final; its log is "
        "runs/studies/space-grid/trials/2-1/log.txt",
    }


def test_what_is_no_result_fails_the_trial_and_not_the_study(nnas: Cli) -> None:
    contents = {
        0: "",
        1: "{",
        2: "[1]",
        3: '{"metric": 1}',
        4: '{"value": NaN}',
        5: '{"value": "good"}',
        6: '{"value": 1, "trial": 99}',
        7: " " * 2**20 + "1",
    }
    Path("contents.json").write_text(json.dumps(contents))
    program("contents = json.load(open('contents.json'))", "\nwrite(contents.get(str(trial), '8'))\n")
    result = tune(nnas, "--json")
    assert result.code == 0
    assert (result.json["failed"], result.json["best"]["number"], result.json["best"]["value"]) == (8, 8, 8)
    assert errors() == {
        0: "the result is not JSON",
        1: "the result is not JSON",
        2: "metric is not a finite number: [1]",
        3: 'the result has no "value"',
        4: "metric is not a finite number: nan",
        5: "metric is not a finite number: 'good'",
        6: "the result is that of trial 99",
        7: "the result is larger than 1048576 bytes",
    }


def test_a_program_of_python_reports_by_the_library(nnas: Cli) -> None:
    Path("trial.py").write_text(
        "from nnas_core.trial import get_parameters, report_final, report_intermediate\n"
        "chosen = get_parameters()['op']['_idx']\n"
        "report_intermediate(0.5)\n"
        "report_final({'default': chosen, 'size': 7})\n"
    )
    root = Path(__file__).parents[2]
    command = f"env PYTHONPATH={root} {sys.executable} trial.py"
    assert tune(nnas, trials=2, command=command).code == 0
    for trial in stored():
        assert trial.value == trial.architecture.indices()["op"][0]
        assert trial.metrics == {"default": trial.value, "size": 7}


def test_the_log_of_a_trial_that_says_too_much_is_bounded(nnas: Cli) -> None:
    program("for _ in range(64): sys.stdout.write('x' * 2**20)\nprint('the end')")
    assert tune(nnas, trials=1).code == 0
    log = Path("runs/studies/space-grid/trials/0-1/log.txt").read_bytes()
    assert len(log) < 10 * 2**20 + 5000
    assert re.search(rb"\[nnas left out \d+ bytes here\]\nx+the end\n$", log)


def test_the_study_ends_after_too_many_failures(nnas: Cli) -> None:
    program("if trial: write(json.dumps({'error': f'{trial} is too many'})); sys.exit()")
    result = tune(nnas, "--max-failures", 2)
    assert (result.code, result.out) == (5, "")
    assert result.err.endswith(
        "nnas: error: study 'space-grid' ends: 2 trials of this run failed\n"
        "  trial 1: 1 is too many\n"
        "hint: mend the trials, or raise --max-failures, and go on with --resume; `nnas study retry space-grid` tries "
        "those again that failed\n"
    )
    assert len(stored()) == 3


# ---- going on


def test_resume_goes_on_to_the_same_study_as_one_run(nnas: Cli) -> None:
    command = (
        "tune",
        "space.json",
        "--trial-command",
        COMMAND,
        "--tuner-arg",
        "num_init=2",
    )
    nnas.ok(*command, "--trials", 6, "--study", "whole")
    nnas.ok(*command, "--trials", 3, "--study", "parts")
    result = nnas.ok(*command, "--trials", 6, "--study", "parts", "--resume")
    assert result.err.startswith("study 'parts': 3 finished trials, 0 recovered\ntrial 3: ")
    assert [(t.architecture, t.value) for t in stored("parts")] == [(t.architecture, t.value) for t in stored("whole")]


def test_another_command_is_refused_and_the_difference_listed(nnas: Cli) -> None:
    tune(nnas, trials=1)
    result = tune(nnas, "--resume", "--optimize-mode", "minimize", command=f"{COMMAND} --fast", trials=2)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "nnas: error: nnas.db: study 'space-grid' was made with other settings\n"
        '  optimize_mode: "maximize" before, "minimize" now\n'
        f'  trial_command: "{COMMAND}" before, "{COMMAND} --fast" now\n'
        "hint: use the old ones, or start another study by --study NAME\n"
    )
    assert tune(nnas, "--resume", command=COMMAND.replace(" ", "  "), trials=2).code == 0


ASSESSOR = """
from nnas_core.assessors.base import Assessor

class AtLeast(Assessor):
    def __init__(self, least, optimize_mode="maximize"):
        super().__init__(optimize_mode)
        self.least = least

    def assess_trial(self, trial_number, history):
        return self.sign * history[-1] >= self.sign * self.least
"""


def test_an_assessor_ends_trials_by_what_they_report(nnas: Cli) -> None:
    Path("mine.py").write_text(ASSESSOR)
    program("report(5.0)\nreport(float(trial))\nif trial < 1: signal.pause()")
    arguments = ("--assessor", "mine.py:AtLeast", "--assessor-arg", "least=1")
    result = tune(nnas, *arguments, trials=3)
    assert result.code == 0
    assert "trial 0: stopped early at 0 (" in result.err
    assert "\n3 trials, 0 failed, 1 stopped early; the number of trials is reached\n" in result.err
    assert [trial.state for trial in stored()] == ["stopped", "succeeded", "succeeded"]
    refused = tune(nnas, "--resume", "--assessor", "mine.py:AtLeast", "--assessor-arg", "least=2", trials=4)
    assert refused.code == 3
    assert '\n  assessor_arg: {"least": 1} before, {"least": 2} now\n' in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--assessor-arg", "least=1"),
            2,
            "--assessor-arg does nothing without --assessor\nhint: give both, or leave it out\n",
        ),
        (
            ("--assessor", "mine.py:AtLeast"),
            2,
            "the assessor 'mine.py:AtLeast' needs the argument 'least'\nhint: give --assessor-arg least=...\n",
        ),
        (
            ("--assessor", "mine.py:AtLeast", "--assessor-arg", "most=1"),
            2,
            "the assessor 'mine.py:AtLeast' takes no argument 'most'\nhint: it takes least\n",
        ),
        (
            ("--assessor", "mine.py:Path"),
            4,
            "mine.py:Path: Path is no Assessor\nhint: derive it from nnas_core.Assessor\n",
        ),
    ],
)
def test_an_assessor_that_cannot_be_made_is_refused_before_a_trial(
    nnas: Cli, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Path("mine.py").write_text(ASSESSOR + "from pathlib import Path\n")
    result = tune(nnas, *arguments)
    assert (result.code, result.out, result.err) == (code, "", f"nnas: error: {message}")
    with StudyStore.open("sqlite:///nnas.db") as store:
        assert store.studies() == []
