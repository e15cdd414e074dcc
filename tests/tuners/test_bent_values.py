"""The scale on which ``bayes`` compares values, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import yeojohnson

from nnas_core.tuners._gaussian import BENDS, bent


def test_values_are_bent_as_by_yeo_and_johnson() -> None:
    values = np.random.default_rng(0).normal(size=41) * 7 + 3
    low, middle, high = np.percentile(values, [25, 50, 75])
    for power in (*BENDS, 2.5):
        expected = yeojohnson((values - middle) / (high - low), power)
        found, slopes = bent(values, power)
        np.testing.assert_allclose(found, (expected - expected.mean()) / expected.std(), atol=1e-9)
        step = 1e-6
        numbers = []
        for place in range(41):  # of each value alone, on a scale that stays
            moved = yeojohnson((np.array([values[place] + step, values[place] - step]) - middle) / (high - low), power)
            numbers.append((moved[0] - moved[1]) / (2 * step) / expected.std() * (high - low))
        assert slopes == pytest.approx(np.log(numbers).sum(), abs=1e-4)


def test_units_do_not_matter_and_outliers_little() -> None:
    values = np.random.default_rng(0).normal(size=41)
    for power in BENDS:
        np.testing.assert_allclose(bent(1e6 * values - 5, power)[0], bent(values, power)[0], atol=1e-6)
    far = np.append(values, -1e300)
    assert np.ptp(bent(far, 5.0)[0][:-1]) > 2  # that the worst is so bad leaves room for the others
    assert bent(np.full(5, 7.0), 2.0)[0].tolist() == [0.0] * 5
