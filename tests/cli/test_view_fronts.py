"""``nnas view`` of a study: which numbers have a Pareto front."""

from __future__ import annotations

from nnas_core.study.importing import GivenResult
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli, nnas
from tests.study.known_studies import SPACE

__all__ = ["nnas"]


def test_a_front_needs_a_direction_that_the_study_says(nnas: Cli) -> None:
    numbers = [(0.9, 0.3), (0.8, 0.2), (0.7, 0.1), (0.6, 0.4)]
    results = [
        GivenResult(
            SPACE.at(place),
            value,
            {
                "accuracy": value,
                "error": other,
                "error_before_recalibration": other,
                "accuracy_before_recalibration": other,
                "loss": 1 - value,
                "f1": other,
                "rmse": other,
            },
            {"ms": other},
        )
        for place, (value, other) in enumerate(numbers)
    ]
    config = {"constraint": ["error<=0.35"], "objective": ["accuracy:max", "rmse:min"]}
    with StudyStore.open("sqlite:///nnas.db") as store:
        store.import_results(store.create_study(StudySettings("told", SPACE, "random", config=config)), results)
        store.import_results(store.create_study(StudySettings("untold", SPACE, "random")), results)
    report = nnas.ok("view", "--study", "told", "--json").json
    fronts = {front["of"]: (front["smaller_is_better"], front["trials"]) for front in report["trials"]["fronts"]}
    assert fronts == {
        "rmse": (True, [0, 1, 2]),
        "error": (True, [0, 1, 2]),
        "error_before_recalibration": (True, [0, 1, 2]),
        "ms": (True, [0, 1, 2]),
        "accuracy_before_recalibration": (False, [0]),
        "loss": (True, [0]),
    }
    assert report["trials"]["fronts"][0]["of"] == "rmse"
    assert [note for note in report["notes"] if note.startswith("no front of f1: ")]
    report = nnas.ok("view", "--study", "untold", "--json").json
    assert {front["of"] for front in report["trials"]["fronts"]} == {"ms", "accuracy_before_recalibration", "loss"}
    unknown = "error, error_before_recalibration, f1, rmse"
    assert f"no front of {unknown}: no objective says whether small or large is better" in report["notes"]
