"""Optuna's samplers as tuners: they are asked and told in memory, the study itself is stored by nnas.

Optuna belongs to the extra ``[optuna]``; it is imported when a tuner receives its search space, not before.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from nnas_core.errors import UsageError
from nnas_core.plugins.arguments import sign_of
from nnas_core.randomness import derive_seed, generator
from nnas_core.space.choice import Choice, Decision, Parameter
from nnas_core.space.encoding import Code, Codes
from nnas_core.tuners._code_tuner import CodeTuner
from nnas_core.tuners.base import ImportedTrial

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

__all__ = ["Encoding", "OptunaTuner"]

_OLDEST = 5
"""The first major version of Optuna whose samplers are as the tuners describe them."""

_MOST_PARAMETERS = 5000
"""More would take Optuna more than seconds for each proposal."""

_MOST_NUMBERED = 64
"""Subsets of a fixed size that are candidates of one categorical parameter; more of them are found by scores."""

_HIGH, _LOW = 0.75, 0.25
"""Scores of candidates that are chosen, and not: the middles of what stands for either."""

_MUTANTS = 20
"""Random neighbours of a known architecture that may be known too, before one is drawn from the whole space."""

_SEEDS = 2**32
"""Optuna's generators take smaller seeds."""


class Encoding:
    """Architectures as parameters that Optuna knows.

    A key with a single decision has no parameter. For samplers of categories

    - one candidate of several is a categorical parameter;
    - any number of them is a truth value a candidate;
    - k of n are a categorical parameter, a category each subset, up to 64 subsets; above that they are scores.

    For samplers of vectors everything is scores: a number from 0 to 1 for each candidate. The k candidates with
    the highest scores are chosen, of equal ones the first; where any number may be, those whose score is at
    least 0.5.

    Args:
        codes: of the space.
        continuous: True for samplers of vectors.

    Attributes:
        distributions: of all parameters, as ``Study.ask`` takes them.
    """

    def __init__(self, codes: Codes, continuous: bool) -> None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        self.distributions: dict[str, BaseDistribution] = {}
        self._fields: list[tuple[Choice, str, list[str]]] = []
        for place, choice in enumerate(codes.space):
            form = _form(choice, continuous)
            names = [f"{place}.{index}" for index in range(len(choice.candidates))]
            if form == "number":
                names = [str(place)]
                self.distributions[names[0]] = CategoricalDistribution(list(range(choice.size)))
            elif form == "flags":
                self.distributions.update(dict.fromkeys(names, CategoricalDistribution([False, True])))
            elif form == "scores":
                self.distributions.update(dict.fromkeys(names, FloatDistribution(0.0, 1.0)))
            self._fields.append((choice, form, names))

    def decode(self, parameters: Mapping[str, float]) -> Code:
        """Returns the code of what a sampler proposed."""
        return tuple(self._number(parameters, *field) for field in self._fields)

    def _number(self, parameters: Mapping[str, float], choice: Choice, form: str, names: list[str]) -> int:
        if form == "single":
            return 0
        if form == "number":
            return int(parameters[names[0]])
        scores = [float(parameters[name]) for name in names]
        return choice.number(_highest(scores, choice.n_chosen))

    def encode(self, code: Code) -> dict[str, float]:
        """Parameters that ``decode`` makes ``code`` of."""
        found: dict[str, float] = {}
        for number, (choice, form, names) in zip(code, self._fields, strict=True):
            if form == "number":
                found[names[0]] = number
            elif form != "single":
                high, low = (True, False) if form == "flags" else (_HIGH, _LOW)
                decision = set(choice.decision(number))
                found.update({name: high if index in decision else low for index, name in enumerate(names)})
        return found


def _form(choice: Choice, continuous: bool) -> str:
    """Names the form in which decisions at a key are parameters."""
    if choice.size == 1:
        return "single"
    if continuous:
        return "scores"
    if choice.n_chosen is None:
        return "flags"
    return "number" if choice.n_chosen == 1 or choice.size <= _MOST_NUMBERED else "scores"


def _highest(scores: list[float], n_chosen: int | None) -> Decision:
    if n_chosen is None:
        return tuple(index for index, score in enumerate(scores) if score >= 0.5)
    ranked = sorted(range(len(scores)), key=lambda index: -scores[index])  # stable: of equal ones the first
    return tuple(sorted(ranked[:n_chosen]))


class OptunaTuner(CodeTuner):
    """A sampler of Optuna in a study in memory that holds what the tuner was told.

    An architecture is proposed once. When the sampler comes back to one that is known, it is asked again, ``tries``
    times; after that one that is unseen is drawn, which differs from the last that it came back to at one key, or
    uniformly, where a few draws found none. Proposals without a result are trials that run, and failures are trials
    that failed, which samplers pass over.

    Args:
        seed: of the study; all generators of the sampler are made from it.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range, or Optuna or what the sampler needs besides is not installed.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Packages that the sampler imports, besides Optuna and what nnas itself needs."""

    continuous: ClassVar[bool] = False
    """True if the sampler knows vectors only."""

    tries: ClassVar[int]
    """Counts the known proposals that may come in a row before one is drawn at random."""

    for_large_spaces: ClassVar[str] = "a tuner for spaces of any size: evolution, local-search or random"
    """Says what serves where a space has too many parameters."""

    retells: ClassVar[bool]
    """A proposal that is known ends with the value that is known for it, rather than as failed."""

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        sign_of(f"{self.name}: optimize_mode", optimize_mode)
        _require(self.name, ("optuna", *self.needs))
        self._rng = generator(seed, "tuner", self.name)

    @abstractmethod
    def _sampler(self, seed: int) -> BaseSampler:
        """Builds the sampler."""

    def _directions(self) -> list[str]:
        """Returns a direction for each value that the sampler is told."""
        return [self.optimize_mode]

    def _values(self, value: float, measured: Mapping[str, object]) -> list[float] | None:
        """Returns what the sampler is told of a trial that succeeded; None: that it failed.

        Args:
            value: of the study's metric.
            measured: what else came with the result.
        """
        return [value]

    def _adopt(self, trial: FrozenTrial) -> None:
        """Lets the sampler make a trial its own that it did not propose."""

    def _begin(self) -> None:
        """Begins an empty study."""
        import optuna

        self._encoding = Encoding(self._codes, self.continuous)
        self._check_size(len(self._encoding.distributions))
        self._results: dict[Code, list[float]] = {}
        self._running: dict[int, tuple[int, Code]] = {}  # by parameter_id: the number in Optuna's study
        with _quiet():
            self._study: Study = optuna.create_study(
                storage=optuna.storages.InMemoryStorage(),
                sampler=self._sampler(derive_seed(self.seed, "tuner", self.name, "sampler") % _SEEDS),
                directions=[optuna.study.StudyDirection[one.upper()] for one in self._directions()],
            )

    @property
    def _most_parameters(self) -> int | None:
        """Holds how many the sampler can learn: Optuna's own cost grows with the square of their number.

        None: any number.
        """
        return _MOST_PARAMETERS

    def _check_size(self, parameters: int) -> None:
        most = self._most_parameters
        if most is not None and parameters > most:
            raise UsageError(
                f"tuner {self.name!r} learns at most {most} parameters, and this search space has {parameters}",
                hint=f"take {self.for_large_spaces}",
            )

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes what the sampler suggests."""
        asked = self._ask() if self._unseen else None
        if asked is None:
            return None
        self._running[parameter_id] = asked
        return asked[1]

    def _ask(self) -> tuple[int, Code] | None:
        code: Code | None = None
        # of two architectures there is nothing to learn, and a single parameter is too few for some samplers
        for _ in range(self.tries if self._codes.size > 2 else 0):
            trial = self._study.ask(self._encoding.distributions)
            code = self._encoding.decode(trial.params)
            if code in self._unseen:
                self._unseen.see(code)
                return trial.number, code
            self._end(trial.number, self._results.get(code) if self.retells else None)
        drawn = None if code is None else self._near(code)
        if drawn is None:
            drawn = self._unseen.draw(self._rng)
        return None if drawn is None else (self._insert(drawn), drawn)

    def _near(self, known: Code) -> Code | None:
        """Returns an unseen architecture that differs from a known one at one key; None if few tries found none."""
        for _ in range(_MUTANTS):
            if (drawn := self._codes.mutate(known, self._rng)) in self._unseen:
                self._unseen.see(drawn)
                return drawn
        return None

    def receive_trial_result(
        self, parameter_id: int, parameters: dict[str, Parameter], value: float, **kwargs: object
    ) -> None:
        """Tells the sampler the value.

        Args:
            parameter_id: as given to ``generate_parameters``.
            parameters: what was tried, which need not be what was proposed.
            value: of the study's metric.
            **kwargs: ``metrics`` and ``cost`` of the trial, numbers by name.
        """
        code = self._codes.read(parameters)
        number, proposed = self._running.pop(parameter_id, (None, None))
        if number is not None and proposed != code:
            self._end(number, None)
            number = None
        self._learn(code, self._values(value, kwargs), number)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        """Lets the trial fail if no result came."""
        if parameter_id in self._running:
            self._end(self._running.pop(parameter_id)[0], None)

    def import_data(self, data: list[ImportedTrial]) -> None:
        """Adds finished trials; those without a finite value only count as known.

        Raises:
            ArchitectureError: a ``parameter`` does not fit the space.
        """
        for entry, (code, value) in zip(data, self._codes.trials(data), strict=True):
            values = None if value is None else self._values(value, entry)
            if values is None:
                self._unseen.see(code)
            else:
                self._learn(code, values, None)

    def _learn(self, code: Code, values: list[float] | None, number: int | None) -> None:
        self._unseen.see(code)
        self._end(self._insert(code) if number is None else number, values)
        if values is not None:
            self._results[code] = values

    def _insert(self, code: Code) -> int:
        """Returns a running trial that the sampler did not propose."""
        from optuna.trial import TrialState, create_trial

        parameters, distributions = self._encoding.encode(code), self._encoding.distributions
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=parameters, distributions=distributions))
        trial = self._study.get_trials(deepcopy=False)[-1]
        self._adopt(trial)
        return trial.number

    def _end(self, number: int, values: list[float] | None) -> None:
        from optuna.trial import TrialState

        self._study.tell(number, values, TrialState.FAIL if values is None else TrialState.COMPLETE)


def _require(tuner: str, packages: tuple[str, ...]) -> None:
    """Refuses to go on without the packages of the extra, none of which is imported."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    hint = "pip install 'nnas[optuna]'"
    if missing:
        what = "package" if len(missing) == 1 else "packages"
        raise UsageError(f"tuner {tuner!r} needs the {what} {', '.join(missing)}", hint=hint)
    version = importlib.metadata.version("optuna")
    if int(version.partition(".")[0]) < _OLDEST:
        raise UsageError(f"tuner {tuner!r} needs optuna {_OLDEST} or newer, not {version}", hint=hint)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Optuna says of a new study and of options that it calls experimental."""
    from optuna.exceptions import ExperimentalWarning

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)
