"""Tests to inherit: what every mutator, every tuner, and every assessor must keep to."""

from nnas_core.testing.assessors import AssessorConformance
from nnas_core.testing.mutators import MODELS, MutatorConformance
from nnas_core.testing.tuners import SPACES, TunerConformance

__all__ = ["MODELS", "SPACES", "AssessorConformance", "MutatorConformance", "TunerConformance"]
