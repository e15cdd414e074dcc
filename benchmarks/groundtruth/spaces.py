"""The spaces whose architectures were all trained alone, and the settings of their trainings and searches."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

SEEDS = (0, 1, 2)
"""Of the trainings of each architecture alone."""


@dataclass(frozen=True)
class Space:
    """One search space with its data.

    Attributes:
        name: of its folder here.
        title: for people.
        package: where the data come from.
        size: number of architectures.
        epochs, batch_size, learning_rate: of a training alone.
        search_epochs: of a search, with the same batches and rate.
        validation: number of validation samples; estimates are made on all of them as one batch.
        recalibrate: batches of that size of training data for BatchNorm.
    """

    name: str
    title: str
    package: str
    size: int
    epochs: int
    batch_size: int
    learning_rate: float
    search_epochs: int
    validation: int
    recalibrate: int

    @property
    def folder(self) -> Path:
        """Of all files of this space."""
        return HERE / self.name

    @property
    def model(self) -> Path:
        """The file of the model and its data."""
        return self.folder / "model.py"


SPACES = {
    one.name: one
    for one in (
        Space(
            name="mnist1d",
            title="243 networks for the signals of MNIST-1D",
            package="mnist1d",
            size=243,
            epochs=12,
            batch_size=128,
            learning_rate=0.05,
            search_epochs=20,
            validation=800,
            recalibrate=2,
        ),
        Space(
            name="digits",
            title="81 networks for the handwritten digits of scikit-learn",
            package="scikit-learn",
            size=81,
            epochs=16,
            batch_size=32,
            learning_rate=0.05,
            search_epochs=25,
            validation=400,
            recalibrate=1,
        ),
    )
}


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Let a command line begin with a space."""
    parser.add_argument("space", choices=SPACES, help="whose tables to make")
