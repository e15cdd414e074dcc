"""Each candidate runs once before a training, so that all mistakes in shapes are known before one of them ends it.

As many forward passes of a first batch as the largest choice has candidates: in pass i every choice takes its candidate
i. Where that fails, each candidate of it runs alone among others that work, and those that fail so are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nnas_core.errors import UserCodeError
from nnas_core.mutables.naming import text_of
from nnas_core.space.choice import Choice, Decision

__all__ = ["try_candidates"]


def try_candidates(
    choices: Mapping[str, Choice], attempt: Callable[[Mapping[str, Decision]], Exception | None], where: str
) -> None:
    """Refuse a model some of whose candidates fail where others work.

    Where nothing works, the mistake is not in the candidates, and nothing is said: the training will.

    Args:
        choices: by key.
        attempt: runs one architecture, given by indices of candidates; what it raised.
        where: the model is, for the error.

    Raises:
        UserCodeError: listing each candidate that fails, with the first line of its error.
    """
    count = max((len(one.candidates) for one in choices.values() if one.kind == "layer_choice"), default=0)
    tried = [{key: _decision(choice, turn) for key, choice in choices.items()} for turn in range(count)]
    errors = [attempt(decisions) for decisions in tried]
    working = next((one for one, error in zip(tried, errors, strict=True) if error is None), None)
    if working is None:
        return
    problems: dict[str, None] = {}
    for decisions, error in zip(tried, errors, strict=True):
        if error is None:
            continue
        alone = [{key: decision} for key, decision in decisions.items() if decision != working[key]]
        found = {text_of(choices, one): reason for one in alone if (reason := attempt({**working, **one})) is not None}
        for shown, reason in (found or {text_of(choices, decisions): error}).items():
            problems[f"with {shown}: {_line(reason)}"] = None
    if problems:
        raise UserCodeError(
            f"{len(problems)} candidate{'s fail' if len(problems) > 1 else ' fails'} on the first training batch",
            where=where,
            problems=list(problems),
            hint="mend the candidates, or leave this trial out by `no_try_candidates`",
        )


def _decision(choice: Choice, turn: int) -> Decision:
    """Return what a choice takes in a turn: one candidate, or as many inputs as it has to."""
    number = len(choice.candidates)
    wanted = 1 if choice.n_chosen is None else choice.n_chosen
    return tuple(sorted((turn + step) % number for step in range(wanted)))


def _line(error: Exception) -> str:
    if isinstance(error, UserCodeError):
        return error.message
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
