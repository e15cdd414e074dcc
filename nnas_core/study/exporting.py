"""The results of a study for other programs: as ``nnictl experiment export`` writes them, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.records import TrialRecord

__all__ = ["results_csv", "results_json"]


def results_json(trials: Sequence[TrialRecord], intermediates: Mapping[int, Sequence[float]]) -> list[dict[str, Any]]:
    """Schema ``results``: parameters, value as a JSON text, number as a text, and what was reported on the way.

    Args:
        trials: that succeeded.
        intermediates: by the number of the trial.
    """
    return [
        {
            "parameter": trial.architecture.parameters(),
            "value": json.dumps(trial.value),
            "id": str(trial.number),
            "intermediate": list(intermediates.get(trial.number, ())),
        }
        for trial in trials
    ]


def results_csv(trials: Sequence[TrialRecord], space: SearchSpace) -> str:
    """A line a trial: ``id``, the candidates chosen at each key, ``reward``, and each metric by name.

    The keys are in the order of the space and the metrics in that of their names, whatever the trials. Several
    candidates have commas between them. A column whose name is taken already gets ``_2`` after it.

    Args:
        trials: that succeeded.
        space: of the study.
    """
    metrics = sorted({name for trial in trials for name in trial.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_distinct(["id", *space.keys, "reward", *metrics]))
    for trial in trials:
        names = trial.architecture.names().values()
        chosen = [",".join(map(str, one)) if isinstance(one, list) else one for one in names]
        writer.writerow([trial.number, *chosen, trial.value, *(trial.metrics.get(name, "") for name in metrics)])
    return text.getvalue()


def _distinct(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        column, count = name, 1
        while column in found:
            count += 1
            column = f"{name}_{count}"
        found.append(column)
    return found
