"""A count: how many architectures of a model are within constraints."""

from __future__ import annotations

from dataclasses import dataclass

from nnas_core.errors import UsageError
from nnas_core.space.goals import nothing_reports
from nnas_core.space.region import Region
from nnas_core.workflows.model_costs import ModelCosts
from nnas_core.workflows.settings import CountSettings
from nnas_core.workflows.setup import Setup

__all__ = ["Count", "count"]


@dataclass(frozen=True)
class Count:
    """How many architectures there are.

    Attributes:
        constraints: as they are stored.
        size: of the space, exact.
        left: how many meet the constraints.
        exact: True if ``left`` is exact, not an estimate from draws.
    """

    constraints: list[str]
    size: int
    left: int
    exact: bool


def count(settings: CountSettings) -> Count:
    """Counts the architectures within constraints: exactly where costs add up.

    Raises:
        UsageError: a constraint is about a number that is not known before an architecture is trained, or none is about
            the latencies of the table.
        NoResultError: no architecture meets the constraints.
    """
    goals = settings.goals
    if goals.latency_table is not None and "latency_ms" not in goals.names:
        raise UsageError(
            "`latency_table` does nothing without a `constraint` on latency_ms", hint="give both, or leave it out"
        )
    setup = Setup(settings.setup)
    if not goals.constraints:
        return Count([], setup.space.size, setup.space.size, True)
    setup.to_device(setup.model)
    costs = ModelCosts(setup, goals.names, goals.latency_table)
    for one in goals.constraints:
        if one.name not in costs.available:
            raise nothing_reports("constraint", one.name, costs.available)
    region = Region(setup.space, goals.constraints, costs)
    left, exact = region.counted()
    return Count([str(one) for one in goals.constraints], setup.space.size, left, exact)
