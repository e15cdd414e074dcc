"""``nnas assess``: what was found, against random architectures."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nnas_core import schema
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import MODEL, Cli, ForkServer, Result, trials_of, wait_until

QUICK = ("--train", 2, "--seeds", 2, "--train-epochs", 1)
ESTIMATES = ("--train", 0)


def report_of(result: Result) -> Any:
    """The report, which keeps its schema."""
    assert result.code in (0, 1), result.err
    assert schema.problems("assess-report", result.json) == []
    return result.json


def values_of(study: str) -> dict[str, float | None]:
    """The values of a study's trials, by architecture."""
    return {str(canonical): value for _, _, canonical, value, _, _ in trials_of(study)}  # type: ignore[misc]


def found_of(run: Path) -> str:
    """The architecture of a run, as trials have it."""
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        space = store.studies()[0].settings.space
    return space.parse(json.loads((run / "architecture.json").read_text())).canonical


def test_a_search_is_compared_with_all_others_of_a_small_space(nnas: Cli, small_run: Path) -> None:
    report = report_of(nnas("assess", "run", *QUICK, "--json"))
    random, alone = report["random"], report["trained_alone"]
    estimates = values_of("assess-run")
    found = estimates.pop(found_of(small_run))
    assert (len(estimates), random["whole_space"], random["asked"], random["failed"]) == (17, True, 100, 0)
    assert random["found"] == found
    assert sorted(random["values"]) == sorted(value for value in estimates.values() if value is not None)
    better = sum(value > found for value in estimates.values() if value is not None and found is not None)
    equal = sum(value == found for value in estimates.values())
    assert random["rank"] == 1 + better + equal / 2
    assert random["percentile"] == pytest.approx(100 * (17 - better - equal / 2) / 17)
    assert "all other architectures there are were measured, 17 of them" in report["notes"]
    assert (alone["seeds"], alone["epochs"], len(alone["values"])) == ([0, 1], 1, 2)
    assert report["equal_compute"]["architectures"] == 1
    assert report["equal_compute"]["expected_best"] == pytest.approx(sum(map(sum, alone["values"])) / 4)
    assert report["collapse"]["mean_share"] == pytest.approx(1 / 3)


def test_an_estimate_is_that_of_evaluate_and_a_training_that_of_tune(nnas: Cli, small_run: Path) -> None:
    report = report_of(nnas("assess", "run", "--random", 3, *QUICK, "--json"))
    chosen = ("model.py", "--architecture", "run/architecture.json")
    alone = nnas.ok("evaluate", *chosen, "--checkpoint", "run/checkpoint.pt", "--json").json
    assert report["random"]["found"] == alone["metrics"]["accuracy"]
    every = ("--tuner", "grid", "--train-epochs", 1, "--trials", 18, "--study", "grid")
    nnas.ok("tune", "model.py", *every, "--seed", 1, "-q", "-o", "best.json")
    truth, trained = values_of("grid"), values_of("assess-run-seed-1")
    assert len(trained) == 3
    assert trained == {one: truth[one] for one in trained}
    assert list(values_of("assess-run-seed-0")) == list(trained)  # in pairs, with each seed
    assert report["trained_alone"]["found"][1] == truth[found_of(small_run)]


def test_so_many_random_ones_are_drawn_and_never_the_found_one(nnas: Cli, small_run: Path) -> None:
    report = report_of(nnas("assess", "run", "--random", 5, *ESTIMATES, "--json"))
    assert (len(report["random"]["values"]), report["random"]["whole_space"]) == (5, False)
    assert len(values_of("assess-run")) == 6
    assert report["trained_alone"] is None
    skipped = {one["name"]: one["text"] for one in report["criteria"] if one["outcome"] == "skipped"}
    assert skipped == {
        "trained alone": "no trainings were asked for",
        "equal compute": "no random architecture was trained alone",
    }


def test_a_gate_fails_with_1_and_all_reports_are_written(nnas: Cli, small_run: Path) -> None:
    written = ("--markdown", "a.md", "--junit", "a.xml", "-o", "a.json")
    passing = nnas("assess", "run", *ESTIMATES, "--fail-under", 0, *written, "-q")
    assert (passing.code, passing.out, passing.err) == (0, "", "")
    percentile = json.loads(Path("a.json").read_text())["random"]["percentile"]
    assert percentile < 100
    failing = nnas("assess", "run", *ESTIMATES, "--fail-under", percentile + 0.1, *written, "-q", "--resume")
    assert (failing.code, failing.out) == (1, "")
    report = json.loads(Path("a.json").read_text())
    assert (report["passed"], report["criteria"][0]["outcome"]) == (False, "failed")
    suite = ElementTree.fromstring(Path("a.xml").read_text())[0]
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("4", "1", "2")
    assert Path("a.md").read_text().startswith("# Assessment of the architecture of the search run\n")
    assert nnas("validate", "a.json").out == "a.json: valid (assess-report)\n"


def test_the_answer_is_two_tables_and_what_has_to_be_known(nnas: Cli, small_run: Path) -> None:
    out = nnas.ok("assess", "run", *ESTIMATES).out
    lines = out.splitlines()
    assert lines[0] == "the architecture of the search run, against random ones"
    assert lines[2].split() == ["criterion", "outcome", "what", "was", "measured"]
    assert lines[4].split()[0] == "percentile"
    assert "of 17 random architectures (rank " in " ".join(out.split())
    assert lines[-1] == "- all other architectures there are were measured, 17 of them"
    assert max(map(len, lines)) <= 80


def test_after_kill_9_the_report_is_the_same(nnas: Cli, small_run: Path, forks: ForkServer, tmp_path: Path) -> None:
    whole = report_of(nnas("assess", "run", *QUICK, "--storage", "sqlite:///whole.db", "--json"))
    process = forks.start(tmp_path, "assess", "run", *QUICK)
    wait_until(lambda: "\ntrial 5: " in process.err, process)
    process.signal(signal.SIGKILL)
    process.wait()
    before = values_of("assess-run")
    result = nnas("assess", "run", *QUICK, "--resume", "--json")
    assert report_of(result) == whole
    after = values_of("assess-run")
    assert {one: after[one] for one in before if before[one] is not None} == {
        one: value for one, value in before.items() if value is not None
    }
    assert nnas("assess", "run", *QUICK, "--resume", "--json").out == result.out


def test_ctrl_c_says_how_to_go_on(small_run: Path, forks: ForkServer, tmp_path: Path) -> None:
    process = forks.start(tmp_path, "assess", "run", *QUICK)
    wait_until(lambda: "\ntrial 3: " in process.err, process)
    process.signal(signal.SIGINT)
    result = process.wait()
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == "hint: go on with --resume"


def test_random_ones_meet_the_constraints_of_the_search(nnas: Cli, small_model: Path) -> None:
    limit = ("--constraint", "parameters<=150")
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1, *limit, "-q", "-o", "run")
    report = report_of(nnas("assess", "run", *ESTIMATES, "--json"))
    assert report["assessed"]["constraints"] == ["parameters<=150"]
    assert len(values_of("assess-run")) == 12  # of 18, those without the large candidate
    with StudyStore.open("sqlite:///nnas.db", create=False) as store:
        trials = store.trials(store.study("assess-run"))
    assert {str(one.architecture.names()["op"]) for one in trials} == {"linear", "skip"}
    assert (report["random"]["whole_space"], report["collapse"]["exact"]) == (True, False)


def test_what_only_a_measurement_tells_to_be_beyond_a_constraint_has_no_place(nnas: Cli, small_model: Path) -> None:
    limit = ("--constraint", "accuracy>=0.4")
    nnas.ok("search", "model.py", "--mutator", "random", "--epochs", 1, *limit, "-q", "-o", "run")
    random = report_of(nnas("assess", "run", *ESTIMATES, "--json"))["random"]
    estimates = [value for value in values_of("assess-run").values() if value is not None]
    beyond = sum(value < 0.4 for value in estimates)
    assert (len(estimates), random["infeasible"], len(random["values"])) == (18, beyond, 17 - beyond)
    assert 0 < beyond < 17
    assert min(random["values"]) >= 0.4


# ---- other things that are assessed


def test_a_retraining_without_a_supernet_has_trainings_alone(nnas: Cli, small_run: Path) -> None:
    nnas.ok("retrain", "model.py", "--architecture", "run/architecture.json", "--epochs", 1, "-q", "-o", "final")
    report = report_of(nnas("assess", "final", "--random", 3, "--train", 2, "--seeds", 2, "--json"))
    assert (report["random"]["measured"], report["random"]["epochs"]) == ("alone", 1)
    assert report["trained_alone"]["studies"] == ["assess-final", "assess-final-seed-1"]
    assert report["trained_alone"]["found"][0] == report["random"]["found"]
    assert report["equal_compute"] is None
    assert report["criteria"][2]["text"] == "how many epochs the search took is not recorded"


def test_a_retraining_of_a_supernet_has_its_weights(nnas: Cli, small_run: Path) -> None:
    chosen = ("--architecture", "run/architecture.json", "--checkpoint", "run/checkpoint.pt", "--label-smoothing", 0.1)
    nnas.ok("retrain", "model.py", *chosen, "--epochs", 1, "-q", "-o", "final")
    report = report_of(nnas("assess", "final", *ESTIMATES, "--json"))
    assert (report["assessed"]["kind"], report["random"]["measured"]) == ("retrain", "inherited")
    assert "trained without label_smoothing of the run, the found one too" in report["notes"]
    shutil.move("run", "elsewhere")
    gone = report_of(nnas("assess", "final", "--random", 2, *ESTIMATES, "--study", "other", "--json"))
    assert gone["random"]["measured"] == "alone"
    line = "the supernet of the run, run/checkpoint.pt, is not there, so nothing has inherited weights"
    assert line in gone["notes"]


def test_a_study_of_inherited_weights_is_measured_with_them(nnas: Cli, small_run: Path) -> None:
    inherited = ("--checkpoint", "run/checkpoint.pt")
    nnas.ok("tune", "model.py", *inherited, "--trials", 6, "--study", "net", "-q", "-o", "best.json")
    report = report_of(nnas("assess", "net", *ESTIMATES, "--json"))
    best = max(value for value in values_of("net").values() if value is not None)
    assert (report["assessed"]["kind"], report["random"]["found"]) == ("study", best)
    nnas.ok("search", "--resume", "run", "--epochs", 2, "-q")
    changed = nnas("assess", "net", *ESTIMATES, "--study", "other")
    assert (changed.code, changed.out) == (3, "")
    assert "run/checkpoint.pt: has other weights than the trials of study 'net' had" in changed.err
    shutil.move("run", "elsewhere")
    refused = nnas("assess", "net", *ESTIMATES, "--study", "other")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "nnas: error: the supernet whose weights study 'net' has is not where it was\nhint: give --checkpoint\n"
    )


def test_a_study_of_trainings_is_counted_in_what_they_took(nnas: Cli, small_model: Path) -> None:
    nnas.ok("tune", "model.py", "--train-epochs", 1, "--trials", 3, "--study", "net", "-q", "-o", "best.json")
    report = report_of(nnas("assess", "net", "--random", 4, "--train", 2, "--seeds", 1, "--json"))
    assert report["random"]["measured"] == "alone"
    assert report["equal_compute"]["search"] == 3
    assert (report["equal_compute"]["architectures"], report["equal_compute"]["trained"]) == (3, 4)
    assert "one seed: the interval says nothing of the noise of training" in report["notes"]


COMMAND = ("--trial-command", "sh -c 'echo 1 > $NNAS_RESULT'")


def test_a_study_of_a_command_runs_it_for_random_ones(nnas: Cli, tmp_path: Path) -> None:
    space = {f"k{n}": {"_type": "layer_choice", "_value": ["conv", "skip", "pool"]} for n in range(2)}
    Path("space.json").write_text(json.dumps(space))
    nnas.ok("tune", "space.json", *COMMAND, "--trials", 2, "--study", "net", "-q")
    report = report_of(nnas("assess", "net", "--random", 3, "--json"))
    assert (report["random"]["measured"], report["random"]["percentile"]) == ("command", 50.0)
    assert report["trained_alone"] is None
    assert (report["equal_compute"]["by"], report["equal_compute"]["architectures"]) == ("trials", 2)
    assert report["collapse"]["recognised_by"] == "names"
    assert report["collapse"]["mean_share"] == pytest.approx(2 / 3)


# ---- what goes wrong


def let_fail(run: Path, *, found: bool) -> None:
    """Changes the model: the activation that the found architecture has is an error from now on, or the other one."""
    has_relu = json.loads((run / "architecture.json").read_text())["act"][0]
    condition = "c.min() >= 0" if has_relu == found else "c.min() < 0"
    failing = f"""        c = self.act(b)
        if {condition}:
            raise ValueError("not this one")
        return self.head(self.link([a, b, c]))
"""
    Path("model.py").write_text(MODEL.replace("        return self.head(self.link([a, b, self.act(b)]))\n", failing))


def test_random_ones_that_fail_are_counted(nnas: Cli, small_run: Path) -> None:
    let_fail(small_run, found=False)
    report = report_of(nnas("assess", "run", *ESTIMATES, "--json"))
    assert (report["random"]["failed"], len(report["random"]["values"])) == (9, 8)
    assert "9 of 17 random architectures failed, and have no place in the ranking" in report["notes"]
    assert "model.py has changed since the checkpoint was written" in report["notes"]


def test_a_found_one_that_fails_is_no_result(nnas: Cli, small_run: Path) -> None:
    let_fail(small_run, found=True)
    first = nnas("assess", "run", *ESTIMATES)
    assert (first.code, first.out) == (4, "")  # as in every study: what the first trial meets may be a mistake
    assert "ValueError: not this one" in first.err
    result = nnas("assess", "run", *ESTIMATES, "--resume")
    assert (result.code, result.out) == (5, "")
    assert "nnas: error: the found architecture could not be measured: ValueError: not this one" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("nowhere",), 3, "nnas: error: nowhere: is neither a run folder nor a study"),
        (("model.py",), 3, "nnas: error: model.py: is no run: a folder is needed"),
        (("empty",), 3, "nnas: error: empty: holds no run of `nnas search` or `nnas retrain`"),
        (("run", "--fail-under", 101), 2, "nnas: error: invalid value for '--fail-under': 101.0 is not in the range"),
        (
            ("run", "--fail-under", "nan"),
            2,
            "nnas: error: invalid value for '--fail-under': nan is not a finite number",
        ),
        (("run", "--random", 0), 2, "nnas: error: invalid value for '--random': 0 is not in the range x>=1"),
        (("run", "--train", -1), 2, "nnas: error: invalid value for '--train': -1 is not in the range x>=0"),
        (("run", "--resume"), 3, "nnas: error: nnas.db: no such file"),
        (("run", "--junit", "no/where/a.xml"), 6, "nnas: error: no/where/a.xml: "),
        (("run", "--junit", "-", "--markdown", "-"), 2, "nnas: error: standard output can have one report"),
        (("run", "--junit", "a", "-o", "./a"), 2, "nnas: error: several reports are to be written to one file"),
        (("run", "--study", "../up"), 2, "nnas: error: bad study name '../up'"),
        (("run", "--model", "other.py"), 3, "nnas: error: other.py: the model has another search space than what is"),
        (("run", "--model", "gone.py"), 3, "nnas: error: gone.py: "),
        (("run", "--checkpoint", "gone.pt"), 3, "nnas: error: gone.pt: "),
    ],
)
def test_bad_input_is_one_line(nnas: Cli, small_run: Path, arguments: tuple[object, ...], code: int, line: str) -> None:
    Path("empty").mkdir()
    Path("other.py").write_text(MODEL.replace('key="op"', 'key="operation"').replace('["", "op"', '["", "operation"'))
    result = nnas("assess", *arguments)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(line), result.err
    assert not Path("nnas.db").exists()


def test_a_run_that_is_not_whole_is_refused(nnas: Cli, small_run: Path) -> None:
    kept = (small_run / "events.jsonl").read_text().splitlines()
    (small_run / "events.jsonl").write_text("\n".join(kept[:-1]) + "\n")
    unfinished = nnas("assess", "run")
    assert unfinished.code == 3
    assert unfinished.err.startswith("nnas: error: run: its run is not finished: 1 of 1 epochs are done\n")
    (small_run / "events.jsonl").write_text("\n".join(kept) + "\n")
    (small_run / "checkpoint.pt").unlink()
    torn = nnas("assess", "run")
    assert torn.code == 3
    assert torn.err.startswith("nnas: error: run/checkpoint.pt: there is no such file, the run folder is not whole\n")


def test_a_study_that_is_there_is_not_begun_again(nnas: Cli, small_run: Path) -> None:
    nnas.ok("assess", "run", "--random", 3, "--train", 1, "--seeds", 1, "--train-epochs", 1, "-q")
    again = nnas("assess", "run")
    assert (again.code, again.out) == (2, "")
    assert again.err == (
        "nnas: error: nnas.db: a study named 'assess-run' exists already\n"
        "hint: go on with it by --resume, or choose another --study name\n"
    )
    others = nnas("assess", "run", "--random", 3, "--train", 2, "--seeds", 1, "--train-epochs", 1, "--resume")
    assert others.code == 3
    assert "study 'assess-run-seed-0' has other architectures" in others.err


# ---- the checklist


def test_the_checklist_is_filled_and_nothing_runs(nnas: Cli, small_run: Path) -> None:
    text = nnas.ok("assess", "run", "--checklist").out
    assert "     $  nnas assess run\n" in text
    assert not Path("nnas.db").exists()
    nnas.ok("assess", "run", "--random", 3, *ESTIMATES, "-q")
    page = nnas.ok("assess", "run", "--checklist", "--markdown", "-").out
    assert "assess-run" in page
    report = nnas.ok("assess", "run", "--checklist", "--json").json
    assert schema.problems("checklist-report", report) == []
    assert nnas.ok("assess", "assess-run", "--checklist", "--json").json["format"] == "nnas.checklist-report/1"


def test_what_would_run_does_nothing_with_the_checklist(nnas: Cli, small_run: Path) -> None:
    for given in (("--random", 3), ("--fail-under", 50), ("--resume",), ("--junit", "a.xml"), ("--concurrency", 2)):
        result = nnas("assess", "run", "--checklist", *given)
        assert (result.code, result.out) == (2, "")
        assert result.err == f"nnas: error: {given[0]} does nothing with --checklist\nhint: leave it out\n"
