"""Views to draw: of a search with weights, of a study, and of names that mean harm."""

from __future__ import annotations

from nnas_core.space.choice import Choice
from nnas_core.space.search_space import SearchSpace
from nnas_core.viewing.view import Epoch, Front, Importance, Trials, View, ViewedCost, ViewedTrial

__all__ = ["HOSTILE", "SPACE", "hostile_view", "search_view", "study_view"]

SPACE = SearchSpace(
    [
        Choice("a.op", "layer_choice", ("conv", "skip", "pool"), 1),
        Choice("b.op", "layer_choice", ("conv", "skip"), 1),
        Choice("b.in", "input_choice", ("", "a.op", "b.op"), None),
    ]
)

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '" onmouseover="window.hacked = 3',
    "<!-- <script>",
    "]]>&lt;b&gt;",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "\x00zero\x0c",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "{{7*7}}${7*7}",
    "\ud800half",
)
"""What somebody may name a key, a candidate, a metric or a file."""


def weights_at(epoch: int) -> dict[str, list[float]]:
    """Those after an epoch: nearer to a decision each time."""
    sure = epoch / 10
    return {"a.op": [sure, 1 - sure, 0.0], "b.op": [0.5, 0.5], "b.in": [0.1, sure, 0.9]}


def search_view() -> View:
    """A search of five epochs."""
    epochs = [
        Epoch(one, {"loss": 1 / one}, {"loss": 1.5 / one, "accuracy": 1 - 0.5 / one}, weights_at(one))
        for one in range(1, 6)
    ]
    return View(
        "search",
        "runs/net",
        SPACE,
        [("state", "running"), ("mutator", "darts")],
        architecture=SPACE.parse({"a.op": "skip", "b.op": "conv", "b.in": ["a.op", "b.op"]}),
        weights=weights_at(5),
        meaning="decision weights after epoch 5",
        epochs=epochs,
        costs={"a.op": [ViewedCost(1234, 5678, 0.5, (16, 8, 8)), ViewedCost(0, 0, 0.1, (16, 8, 8)), ViewedCost()]},
        running=True,
    )


def study_view(count: int = 250) -> View:
    """A study whose trial n has the value (7 n) mod count, and n parameters."""
    shown = [
        ViewedTrial(
            number,
            "succeeded" if number % 10 else "failed",
            number % 50 != 7,
            float(7 * number % count) if number % 10 else None,
            number / 100,
            {"parameters": float(number)} if number % 10 else {},
            [(number % 3,), (number % 2,), ()],
            None if number % 10 else f"ValueError: trial {number} broke",
        )
        for number in range(count)
    ]
    good = sorted((one for one in shown if one.value is not None), key=lambda one: -(one.value or 0))
    failed = sum(one.state == "failed" for one in shown)
    front, least = [], float("inf")
    for one in good:
        if one.number < least:
            front.append(one.number)
            least = one.number
    return View(
        "study",
        "net-bayes",
        SPACE,
        [("tuner", "bayes")],
        architecture=SPACE.parse({"a.op": [0], "b.op": [0], "b.in": []}),
        weights={"a.op": [0.5, 0.25, 0.25], "b.op": [0.5, 0.5], "b.in": [0.0, 0.0, 0.0]},
        meaning="share of each candidate in the best 25 trials",
        trials=Trials(
            mode="maximize",
            count=100_000,
            counts={"failed": failed, "infeasible": count // 50, "succeeded": count - failed - count // 50},
            shown=shown,
            best=good[0].number,
            curve=[(1, 7.0), (2, 14.0)],
            fronts=[Front("parameters", True, front), Front("accuracy", False, [good[0].number])],
            importance=[Importance("a.op", 0.75, 3), Importance("b.op", 0.125, 2)],
            exact=False,
            succeeded=count - failed,
        ),
        notes=[f"of 100,000 trials {count} are listed, the best and the newest"],
    )


def hostile_view() -> View:
    """Every text of somebody else is one of ``HOSTILE``."""
    space = SearchSpace([Choice(key, "layer_choice", HOSTILE, 1) for key in HOSTILE[:-1]])
    row = [1 / len(HOSTILE)] * len(HOSTILE)
    names = [name for name in HOSTILE if not name.startswith("\ud800")]
    trials = [
        ViewedTrial(number, "failed", True, 0.5, 1.0, dict.fromkeys(names, 0.5), [(number,)] * len(space), name)
        for number, name in enumerate(HOSTILE)
    ]
    return View(
        "study",
        HOSTILE[0],
        space,
        [(name, name) for name in HOSTILE],
        weights={choice.key: row for choice in space},
        meaning=HOSTILE[0],
        epochs=[Epoch(one, dict.fromkeys(names, 0.5), dict.fromkeys(names, 0.25)) for one in (1, 2)],
        trials=Trials(
            mode="maximize",
            count=len(trials),
            counts={HOSTILE[0]: len(trials)},
            shown=trials,
            best=0,
            curve=[(0, 0.5)],
            fronts=[Front(name, True, [0]) for name in names],
            importance=[Importance(choice.key, 0.1, 2) for choice in space],
            exact=False,
            succeeded=len(trials),
        ),
        notes=HOSTILE,
    )
