"""CDARTS: its losses and its steps, against plain computations."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnas_core.mutators.cdarts import CdartsMutator
from tests.mutables.sample_models import OneLayer
from tests.mutators.cdarts_search import batch_of, cyclic, double, net
from tests.mutators.darts_variant_searches import different, run

# ---- losses


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_divergence_is_that_of_the_softened_softmaxes_a_sample(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    search, evaluation = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for row in range(5):
        p = [math.exp(one / temperature) for one in evaluation[row].tolist()]
        q = [math.exp(one / temperature) for one in search[row].tolist()]
        p, q = [one / sum(p) for one in p], [one / sum(q) for one in q]
        expected += sum(one * math.log(one / other) for one, other in zip(p, q, strict=True)) / 5
    mutator = CdartsMutator(net(), loss_T=temperature)
    assert mutator.divergence(search, evaluation).item() == pytest.approx(expected, rel=1e-12)
    assert mutator.divergence(search, search).item() == pytest.approx(0, abs=1e-15)
    # of images, the classes are in the second dimension and the mean is over images
    images = [one.unsqueeze(2).expand(5, 3, 4) for one in (search, evaluation)]
    assert mutator.divergence(*images).item() == pytest.approx(4 * expected, rel=1e-12)


def test_its_gradients_in_both_logits_agree_with_differences() -> None:
    mutator = CdartsMutator(net(), loss_T=1.7)
    logits = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(mutator.divergence, logits, eps=1e-6, atol=1e-9)
    (gradient,) = torch.autograd.grad(mutator.divergence(*logits), logits[0])
    softened = [(one / 1.7).softmax(1) for one in logits]
    torch.testing.assert_close(gradient, (softened[0] - softened[1]) / (4 * 1.7), rtol=1e-10, atol=1e-12)


def test_smooth_l1_compares_the_logits_themselves() -> None:
    mutator = CdartsMutator(net(), interactive_type="smoothl1")
    search, evaluation = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.5, 1.0]])
    assert mutator.divergence(search, evaluation).item() == pytest.approx((0.5 * 0.25 + (2 - 0.5)) / 2)


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize(("kind", "alpha", "temperature"), [("kl", 2.0, 2.0), ("kl", 0.5, 3.0), ("smoothl1", 3.0, 2.0)])
def test_the_joint_losses_are_those_of_a_direct_computation(
    kind: Any, alpha: float, temperature: float, auxiliary: bool
) -> None:
    trainer = double(
        model={"auxiliary": auxiliary}, epochs=4, loss_alpha=alpha, loss_T=temperature, interactive_type=kind
    )
    planted = torch.tensor([[0.9, -0.4, 0.1, 0.3], [-0.2, 0.5, 0.7, 0.0]], dtype=torch.float64)
    trainer.mutator.logits.data.copy_(planted)
    with torch.no_grad():
        for parameter in trainer.evaluation.parameters():
            parameter.mul_(1.3)
    trainer.epoch = 1
    trainer.start_epoch(1)
    trainer.searching.reset()
    x, y = batch_of(trainer)
    losses = trainer.joint_losses([x, y])

    def ends(model: Any, mixed: Tensor) -> Any:
        return (model.head(mixed), model.auxiliary(mixed)) if auxiliary else (model.head(mixed),)

    def normalized(model: Any, h: Tensor) -> Tensor:
        centred = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
        return centred * model.norm.weight + model.norm.bias

    p = planted.softmax(1)
    own = trainer.model
    a = p[0, 0] * own.a[0][0](x) + p[0, 1] * x + p[0, 2] * torch.tanh(x)
    b = p[1, 0] * own.b[0][0](a) + p[1, 1] * a + p[1, 2] * torch.tanh(a)
    search = ends(own, normalized(own, a + b))
    # The evaluation network is linear at a, tanh at b; of their weights 0.46 and 0.40 that of a is larger.
    assert trainer.derived == {"a": [0], "b": [2], "pick": [0]}
    other = trainer.evaluation
    evaluation = ends(other, normalized(other, other.a[0][0](x)))

    def cross_entropy(logits: tuple[Tensor, ...]) -> Tensor:
        parts = [-one.log_softmax(1)[range(len(y)), y].mean() for one in logits]
        return parts[0] if len(parts) == 1 else parts[0] + 0.4 * parts[1]

    if kind == "kl":
        log_p, log_q = ((one[0] / temperature).log_softmax(1) for one in (evaluation, search))
        apart = (log_p.exp() * (log_p - log_q)).sum() / len(y)
    else:
        apart = F.smooth_l1_loss(search[0], evaluation[0])
    expected = {
        "search": cross_entropy(search) / alpha,
        "evaluation": cross_entropy(evaluation) / alpha,
        "interaction": apart * temperature**2 * alpha,
        "regularization": torch.tensor(5.0 * (0.4 + 0.5), dtype=torch.float64),  # in the first epoch of three
    }
    assert list(losses) == list(expected)
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-10, atol=1e-12)


def test_the_regularization_falls_linearly_in_the_first_part_of_the_search() -> None:
    trainer = cyclic(epochs=22, warmup_epochs=2, regular_coeff=10.0, regular_ratio=0.25)
    assert [trainer.regularization(epoch) for epoch in range(2, 9)] == pytest.approx([10, 8, 6, 4, 2, 0, 0])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (None, [1, 2, 4]),
        (["POOL"], [1, 2]),
        (["relu", "skip"], [1, 3, 4]),
        ([], []),
    ],
)
def test_candidates_are_regularized_by_name_or_class(texts: list[str] | None, expected: list[int]) -> None:
    candidates = OrderedDict(
        conv=nn.Linear(4, 4), max_pool=nn.ReLU6(), average=nn.AvgPool1d(1), act=nn.ReLU(), skip_connect=nn.Tanh()
    )
    mutator = CdartsMutator(OneLayer(candidates, key="op"), regularized=texts)
    assert mutator.regularized[0].nonzero().flatten().tolist() == expected


def test_nothing_to_regularize_is_no_error() -> None:
    trainer = double(regularized=[], epochs=1)
    trainer.start_epoch(0)
    trainer.searching.reset()
    assert trainer.joint_losses(batch_of(trainer))["regularization"].item() == 0
    run(trainer)
    assert trainer.epoch == 1


# ---- steps


@pytest.mark.parametrize("clip_grad", [0.0, 0.3])
def test_a_joint_step_is_that_of_a_plain_program(clip_grad: float) -> None:
    trainer = double(model={"normalized": False}, epochs=1, clip_grad=clip_grad, learning_rate=0.05)
    trainer.start_epoch(0)
    trainer.first_pass = 4  # the second pass
    twins = copy.deepcopy([trainer.model, trainer.evaluation])
    logits = trainer.mutator.logits.detach().clone().requires_grad_()
    path = trainer.derived
    train_batch, held_out = batch_of(trainer), trainer.to_device(next(copy.copy(trainer.held_out)))
    trainer.held_out.load_state_dict({"pass": 0, "consumed": 0, "start": None})
    trainer.train_batch(train_batch)

    search, evaluation = twins

    def mixed(x: Tensor) -> Tensor:
        p = logits.softmax(1)
        a = p[0, 0] * search.a[0][0](x) + p[0, 1] * x + p[0, 2] * torch.tanh(x)
        b = p[1, 0] * search.b[0][0](a) + p[1, 1] * a + p[1, 2] * torch.tanh(a)
        return search.head(a + b)

    def discrete(x: Tensor) -> Tensor:
        functions = [
            [own[0][0], lambda h: h, torch.tanh][path[key][0]]
            for key, own in (("a", evaluation.a), ("b", evaluation.b))
        ]
        a = functions[0](x)
        return evaluation.head([a, functions[1](a)][path["pick"][0]])

    def clipped(parameters: list[Tensor]) -> None:
        gradients = [one.grad for one in parameters if one.grad is not None]
        norm = torch.cat([one.flatten() for one in gradients]).norm()
        for gradient in gradients if clip_grad and norm > clip_grad else ():
            gradient.mul_(clip_grad / (norm + 1e-6))

    x, y = held_out
    soft, hard = mixed(x), discrete(x)
    log_p, log_q = (hard / 2).log_softmax(1), (soft / 2).log_softmax(1)
    loss = (F.cross_entropy(soft, y) + F.cross_entropy(hard, y)) / 2
    loss = loss + 2 * 4 * (log_p.exp() * (log_p - log_q)).sum() / len(y) + 5 * logits[:, 1].abs().sum()
    loss.backward()
    search.zero_grad()
    weights = list(evaluation.parameters())
    clipped(weights)
    optimizers = [
        torch.optim.Adam([logits], lr=0.05, betas=(0.5, 0.999), weight_decay=1e-4),
        torch.optim.SGD(weights, lr=0.025, momentum=0.9, weight_decay=3e-4),
    ]
    for optimizer in optimizers:
        optimizer.step()
    x, y = train_batch
    with torch.no_grad():
        fixed = logits.softmax(1)
    F.cross_entropy(mixed(x), y).backward(inputs=list(search.parameters()))
    assert torch.equal(fixed, logits.softmax(1))
    clipped(list(search.parameters()))
    torch.optim.SGD(search.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4).step()

    torch.testing.assert_close(trainer.mutator.logits.detach(), logits.detach(), rtol=1e-10, atol=1e-12)
    for network, twin in ((trainer.evaluation, evaluation), (trainer.model, search)):
        for (name, ours), theirs in zip(network.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)


def test_statistics_of_the_search_network_come_from_its_own_steps() -> None:
    trainer = cyclic(epochs=1)
    trainer.start_epoch(0)
    before = copy.deepcopy(trainer.model.state_dict())
    of_evaluation = trainer.evaluation.norm.running_mean.clone()
    trainer.architecture_step(None, batch_of(trainer))
    assert different(before, trainer.model.state_dict()) == []
    assert not torch.equal(of_evaluation, trainer.evaluation.norm.running_mean)
