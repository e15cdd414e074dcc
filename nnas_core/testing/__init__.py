"""Tests to inherit: what every mutator, and every tuner, must keep to."""

from nnas_core.testing.mutators import MODELS, MutatorConformance
from nnas_core.testing.tuners import SPACES, TunerConformance

__all__ = ["MODELS", "SPACES", "MutatorConformance", "TunerConformance"]
