"""Sparse gradients are clipped and applied as dense ones are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnas_core.errors import UserCodeError
from nnas_core.training.data import build_batches
from nnas_core.training.optimizers import clip_gradients, default_optimizer
from nnas_core.training.settings import DataSettings, OptimizerSettings
from nnas_core.training.trainer import Trainer
from tests.training.sample_trainings import task_of


class Words(nn.Module):
    """An embedding of words, some of which come twice."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.emb = nn.Embedding(9, 3, sparse=sparse)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            for number, one in enumerate(self.parameters()):
                one.copy_(torch.randn(one.shape, generator=torch.Generator().manual_seed(number)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.emb(x).mean(1))


WORDS = torch.tensor([[1, 1, 4], [4, 2, 1]])


def trained(sparse: bool, clip: float) -> list[torch.Tensor]:
    model = Words(sparse)
    optimizer = default_optimizer(model.parameters(), OptimizerSettings(learning_rate=0.5, weight_decay=0.1))
    norms = []
    for _ in range(4):
        optimizer.zero_grad()
        model(WORDS).pow(2).sum().backward()
        norms.append(clip_gradients(model.parameters(), clip))
        optimizer.step()
    return [*norms, *(one.detach() for one in model.parameters())]


@pytest.mark.parametrize("clip", [0.1, 1e6])
def test_a_training_with_them_is_that_with_dense_ones(clip: float) -> None:
    torch.testing.assert_close(trained(True, clip), trained(False, clip), rtol=1e-5, atol=1e-6)


def test_an_optimizer_that_takes_none_is_named() -> None:
    task = task_of(
        train_dataset=lambda: [(WORDS[0], 0), (WORDS[1], 1)] * 5,
        build_optimizer=lambda parameters: torch.optim.Adam(parameters),
    )
    trainer = Trainer(Words(True), task, *build_batches(task, DataSettings(batch_size=4)), 1)
    with pytest.raises(UserCodeError, match="a step of Adam failed: RuntimeError: Adam does not support sparse"):
        trainer.train()
