"""Places, intervals and the best of several, against scipy, enumeration, and numbers worked out by hand."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from scipy import stats

from nnas_core.assessment.statistics import expected_best, paired_interval, place_of, student_quantile, summary


def test_a_place_counts_equal_values_half() -> None:
    place = place_of(0.5, [0.9, 0.5, 0.5, 0.1], sign=1)
    assert (place.better, place.equal, place.worse) == (1, 2, 1)
    assert (place.rank, place.percentile) == (3.0, 50.0)


def test_the_rank_is_the_midrank_and_the_percentile_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        for _ in range(20):
            others = [float(one) for one in rng.integers(0, 6, 11)]
            value = float(rng.integers(-1, 7))
            place = place_of(value, others, sign)
            ranks = stats.rankdata([-sign * one for one in [value, *others]], method="average")
            assert place.rank == ranks[0]
            signed = [sign * one for one in others]
            assert place.percentile == pytest.approx(stats.percentileofscore(signed, sign * value, kind="mean"))


def test_the_best_has_the_first_rank_and_the_worst_the_last() -> None:
    assert (place_of(3.0, [1.0, 2.0], 1).rank, place_of(3.0, [1.0, 2.0], 1).percentile) == (1.0, 100.0)
    assert (place_of(3.0, [1.0, 2.0], -1).rank, place_of(3.0, [1.0, 2.0], -1).percentile) == (3.0, 0.0)


def test_a_summary_is_that_of_the_standard_library() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    found = summary(values)
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    assert (found.lower_quartile, found.median, found.upper_quartile) == tuple(quartiles)
    assert (found.minimum, found.maximum) == (1.0, 9.0)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.deviation == pytest.approx(statistics.stdev(values))
    assert summary([2.0]).deviation is None


@pytest.mark.parametrize("freedom", [1.0, 1.7, 2.0, 4.5, 30.0, 400.0])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.999])
def test_quantiles_are_those_of_scipy(freedom: float, probability: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)


def test_with_one_seed_the_interval_is_the_paired_one_of_scipy() -> None:
    found, others = 0.8, [0.7, 0.75, 0.81, 0.6, 0.72]
    got = paired_interval([[found - one] for one in others])
    want = stats.ttest_rel([found] * 5, others).confidence_interval(0.95)
    assert (got.low, got.high) == (pytest.approx(want.low), pytest.approx(want.high))
    assert got.freedom == pytest.approx(4)


def test_with_one_architecture_the_interval_is_over_the_seeds() -> None:
    differences = [0.1, 0.3, -0.2, 0.15]
    got = paired_interval([differences])
    want = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (got.low, got.high) == (pytest.approx(want.low), pytest.approx(want.high))


def test_one_pair_has_no_interval() -> None:
    got = paired_interval([[0.25]])
    assert (got.mean, got.low, got.high, got.freedom) == (0.25, None, None, None)


def test_pairs_that_all_differ_by_the_same_have_an_interval_without_width() -> None:
    got = paired_interval([[0.5, 0.5], [0.5, 0.5]])
    assert (got.mean, got.low, got.high) == (0.5, 0.5, 0.5)


def test_the_interval_adds_the_variances_of_architectures_and_seeds() -> None:
    table = [[1.0, 2.0], [3.0, 5.0], [4.0, 6.0]]
    rows, columns = [1.5, 4.0, 5.0], [8 / 3, 13 / 3]
    parts = statistics.variance(rows) / 3, statistics.variance(columns) / 2
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 1)
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    got = paired_interval(table)
    assert got.freedom == pytest.approx(freedom)
    assert (got.low, got.high) == (pytest.approx(3.5 - half), pytest.approx(3.5 + half))


def test_the_interval_has_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):  # the true advantage is 0.3; architectures, seeds and single trainings all vary
        table = 0.3 + rng.normal(0, 1, (6, 1)) + rng.normal(0, 0.7, (1, 4)) + rng.normal(0, 0.5, (6, 4))
        got = paired_interval(table.tolist())
        hits += (got.low or 0) <= 0.3 <= (got.high or 0)
    assert 0.93 <= hits / 400 <= 0.99


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_of_several_is_the_mean_over_all_ways_to_choose_them(sign: int) -> None:
    values = [0.3, 0.1, 0.3, 0.9, -0.4, 0.25]
    for count in range(1, 7):
        best = [max(chosen, key=lambda one: sign * one) for chosen in itertools.combinations(values, count)]
        assert expected_best(values, count, sign) == pytest.approx(statistics.fmean(best))


def test_more_than_there_are_say_nothing() -> None:
    with pytest.raises(ValueError, match="3 values say nothing of the best of 4"):
        expected_best([1.0, 2.0, 3.0], 4, 1)
