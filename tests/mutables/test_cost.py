"""Costs against numbers worked out by hand, and against the extracted model counted by torch itself."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnas_core import InputChoice, LayerChoice, RandomMutator, extract
from nnas_core.errors import UserCodeError
from nnas_core.mutables.cost import FlopMeter, count_flops, parameter_table
from nnas_core.space.costs import CostTable
from tests.mutables.sample_models import Everything


class Convolutions(nn.Module):
    """A stem, a choice of four, a choice of the classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        wide = nn.Sequential(
            nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, bias=False)
        )
        ops = OrderedDict(wide=wide, depthwise=nn.Conv2d(4, 4, 5, padding=2, groups=4), skip=nn.Identity())
        ops["pool"] = nn.AvgPool2d(3, 1, 1)
        self.op = LayerChoice(ops, key="op")
        self.head = LayerChoice([nn.Linear(4, 10), nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 10))], key="head")

    def forward(self, x):
        return self.head(self.op(self.stem(x)).mean((2, 3)))


class Strided(nn.Module):
    """The first choice decides what shape the second one sees."""

    def __init__(self):
        super().__init__()
        self.a = LayerChoice([nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 3, stride=2, padding=1)], key="a")
        self.b = LayerChoice([nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)], key="b")

    def forward(self, x):
        return self.b(self.a(x))


class Optional(nn.Module):
    """Without an input there is one layer less."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="op")
        self.any = InputChoice(2, key="any")
        self.extra = nn.Linear(4, 4)

    def forward(self, x):
        y = self.op(x)
        chosen = self.any([x, y])
        return y if chosen is None else self.extra(chosen)


class Conspiring(nn.Module):
    """Shapes stay, but one combination of ``count`` choices costs more: seen by masks, in no shape."""

    def __init__(self, count):
        super().__init__()
        self.ops = nn.ModuleList(
            LayerChoice([nn.Linear(4, 4), nn.Identity()], return_mask=True, key=f"op{n}") for n in range(count)
        )
        self.extra = nn.Linear(4, 4)

    def forward(self, x):
        chosen = []
        for op in self.ops:
            x, mask = op(x)
            chosen.append(bool(mask[0]))
        return self.extra(x) if chosen == [True, False] else x


def image(channels=3, size=(5, 6)):
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


def meter_of(model, x):
    mutator = RandomMutator(model, torch.Generator().manual_seed(0))
    return mutator, FlopMeter(mutator, lambda: model(x))


def counted(module, *inputs):
    """What torch's own counter says."""
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


STEM_FLOPS = 5 * 6 * 3 * 4 * 9 * 2
WIDE_FLOPS = 5 * 6 * 4 * 8 * 2 + 5 * 6 * 8 * 4 * 9 * 2
DEPTHWISE_FLOPS = 5 * 6 * 4 * 25 * 2


class TestByHand:
    def test_parameters_of_each_candidate(self):
        wide = (4 * 8 + 8) + 2 * 8 + 8 * 4 * 9
        assert parameter_table(Convolutions()) == CostTable(
            fixed=3 * 4 * 9 + 4,
            candidates={"op": (wide, 4 * 25 + 4, 0, 0), "head": (4 * 10 + 10, 4 * 6 + 6 + 6 * 10 + 10)},
        )

    def test_flops_of_each_candidate(self):
        _, meter = meter_of(Convolutions(), image())
        assert meter.table() == CostTable(
            fixed=STEM_FLOPS,
            candidates={"op": (WIDE_FLOPS, DEPTHWISE_FLOPS, 0, 0), "head": (2 * 40, 2 * 24 + 2 * 60)},
        )

    def test_flops_of_one_architecture(self):
        _, meter = meter_of(Convolutions(), image())
        assert meter.measure({"op": (1,), "head": (0,)}) == STEM_FLOPS + DEPTHWISE_FLOPS + 2 * 40

    def test_a_batch_of_two_has_twice_the_flops(self):
        _, meter = meter_of(Convolutions(), torch.cat([image(), image()]))
        assert meter.measure({"op": (2,), "head": (0,)}) == 2 * (STEM_FLOPS + 2 * 40)

    @pytest.mark.parametrize(
        ("module", "flops"),
        [
            (nn.Linear(8, 3, bias=False), 10 * 8 * 3 * 2),
            (nn.LSTM(8, 6, batch_first=True), 10 * (8 + 6) * 4 * 6 * 2),
            (nn.GRU(8, 6, batch_first=True), 10 * (8 + 6) * 3 * 6 * 2),
            # projections to q, k, v; q k^T and its product with v in 2 heads of 4; projection back; 8 -> 16 -> 8
            (
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
                10 * 8 * 24 * 2 + 2 * (2 * 2 * 5 * 5 * 4 * 2) + 10 * 8 * 8 * 2 + 2 * 10 * 8 * 16 * 2,
            ),
        ],
        ids=["linear", "lstm", "gru", "transformer"],
    )
    def test_kernels_that_fuse_everything_count_too(self, module, flops):
        module.eval()
        x = torch.zeros(2, 5, 8)
        with torch.no_grad():
            assert count_flops(lambda: module(x)) == flops

    def test_kernels_are_chosen_again_as_before(self):
        backends = torch.backends

        def chosen():
            return backends.mha.get_fastpath_enabled(), backends.mkldnn.enabled, backends.cudnn.enabled

        before = chosen()
        seen = []
        with pytest.raises(ValueError, match="stop"):
            count_flops(lambda: (seen.append(chosen()), int("stop")))
        assert (chosen(), seen) == (before, [(False, False, False)])


class TestAgainstTheExtractedModel:
    def test_parameters_of_random_architectures(self):
        model = Everything()
        table = parameter_table(model)
        space = RandomMutator(model).space
        rng = np.random.default_rng(0)
        for architecture in (space.sample(rng) for _ in range(30)):
            child = extract(model, architecture)
            assert table.of(architecture.indices()) == sum(one.numel() for one in child.parameters())

    def test_flops_of_random_architectures(self):
        model, x = Everything(), image(1, (4, 4))
        mutator, meter = meter_of(model, x)
        table = meter.table()
        rng = np.random.default_rng(0)
        for architecture in (mutator.space.sample(rng) for _ in range(30)):
            measured = counted(extract(model, architecture), x)
            assert measured == meter.measure(architecture.indices()) == table.of(architecture.indices())


class TestSharing:
    def model(self):
        """One module is a candidate of two keys, one a candidate of one key twice, one is used outside too."""
        model = nn.Module()
        both, twice, outside = nn.Linear(2, 3), nn.Linear(5, 7), nn.Linear(11, 13)
        tied = nn.Linear(2, 3)
        tied.weight = both.weight
        model.outside = outside
        model.a = LayerChoice([both, twice, twice, outside], key="a")
        model.b = LayerChoice([both, tied, nn.Linear(1, 1), outside], key="b")
        model.b_again = LayerChoice([nn.Identity(), nn.Identity(), nn.Linear(17, 1), nn.Identity()], key="b")
        return model

    def test_what_is_shared_counts_once(self):
        model = self.model()
        table = parameter_table(model)
        for a, b in itertools.product(range(4), range(4)):
            child = extract(model, {"a": a, "b": b})
            assert table.of({"a": (a,), "b": (b,)}) == sum(one.numel() for one in child.parameters())

    def test_by_hand(self):
        table = parameter_table(self.model())
        assert table.of({"a": (0,), "b": (1,)}) == (11 * 13 + 13) + (6 + 3) + 3  # b shares the weight, not the bias
        assert table.of({"a": (1,), "b": (2,)}) == (11 * 13 + 13) + (35 + 7) + 2 + 18
        assert table.of({"a": (1, 2), "b": (3,)}) == (11 * 13 + 13) + (35 + 7)

    def test_many_at_once_are_the_same(self):
        table = parameter_table(self.model())
        rows = np.array(list(itertools.product(range(4), range(4))))
        assert table.of_many(rows).tolist() == [table.of({"a": (a,), "b": (b,)}) for a, b in rows.tolist()]

    def test_limits_hold_for_all(self):
        table = parameter_table(self.model())
        costs = table.of_many(np.array(list(itertools.product(range(4), range(4)))))
        assert table.limits[0] <= costs.min() <= costs.max() <= table.limits[1]

    def test_limits_are_reached_where_nothing_is_shared(self):
        table = CostTable(3, {"a": (5, 1), "b": (2, 9, 4)})
        assert table.limits == (6, 17)

    def test_a_model_of_inputs_only_has_one_cost(self):
        class Inputs(nn.Module):
            def __init__(self):
                super().__init__()
                self.pick = InputChoice(2, n_chosen=1)
                self.head = nn.Linear(3, 5)

            def forward(self, x):
                return self.head(self.pick([x, -x]))

        _, meter = meter_of(Inputs(), torch.zeros(1, 3))
        assert meter.table() == CostTable(30, {})
        assert meter.table().of_many(np.zeros((4, 0), dtype=np.int64)).tolist() == [30] * 4

    def test_a_lazy_parameter_has_no_size(self):
        model = nn.Sequential(LayerChoice([nn.LazyLinear(3), nn.Identity()]))
        with pytest.raises(UserCodeError, match=r"the parameter 0\.0\.weight has no shape yet"):
            parameter_table(model)


class TestWhatDoesNotAddUp:
    @pytest.mark.parametrize(
        ("model", "shape"),
        [(Strided, (1, 1, 8, 8)), (Optional, (1, 4)), (lambda: Conspiring(2), (1, 4))],
        ids=["shapes", "no input", "masks"],
    )
    def test_it_is_noticed(self, model, shape):
        _, meter = meter_of(model(), torch.zeros(shape))
        assert meter.table() is None

    @pytest.mark.parametrize("options", [{"reduction": "concat"}, {"reduction": "none"}], ids=str)
    def test_so_are_inputs_in_varying_number(self, options):
        class Varying(nn.Module):
            def __init__(self):
                super().__init__()
                self.any = InputChoice(2, **options)
                self.head = nn.Linear(4, 4)

            def forward(self, x):
                chosen = self.any([x, x])
                chosen = [] if chosen is None else chosen
                return sum(self.head(one) for one in (chosen if isinstance(chosen, list) else chosen.split(4, 1)))

        _, meter = meter_of(Varying(), torch.zeros(1, 4))
        assert meter.table() is None

    def test_and_inputs_of_different_shapes(self):
        class Different(nn.Module):
            def __init__(self):
                super().__init__()
                self.pick = InputChoice(2, n_chosen=1)
                self.head = nn.Conv1d(1, 1, 1)

            def forward(self, x):
                return self.head(self.pick([x, x[..., :2]]))

        _, meter = meter_of(Different(), torch.zeros(1, 1, 4))
        assert meter.table() is None

    @pytest.mark.parametrize(
        "after", [lambda: nn.Conv1d(1, 1, 1), lambda: LayerChoice([nn.Conv1d(1, 1, 1)])], ids=["outside", "inside"]
    )
    def test_even_if_only_one_candidate_of_many_is_to_blame(self, after):
        """Random architectures alone would hardly find it."""
        candidates = [*(nn.Identity() for _ in range(79)), nn.AvgPool1d(2)]
        _, meter = meter_of(nn.Sequential(LayerChoice(candidates), after()), torch.zeros(1, 1, 8))
        assert meter.table() is None

    def test_one_by_one_it_is_right(self):
        model, x = Strided(), image(1, (8, 8))
        mutator, meter = meter_of(model, x)
        for number in range(mutator.space.size):
            architecture = mutator.space.at(number)
            assert meter.measure(architecture.indices()) == counted(extract(model, architecture), x)

    def test_an_empty_choice_that_changes_nothing_else_adds_up(self):
        class Shortcut(Optional):
            def forward(self, x):
                y = self.extra(self.op(x))
                chosen = self.any([x, y])
                return y if chosen is None else y + chosen

        _, meter = meter_of(Shortcut(), torch.zeros(1, 4))
        assert meter.table() == CostTable(32, {"op": (32, 0)})


class Restless(nn.Module):
    """Changes everything that a forward pass can change: buffers also in evaluation mode, and random states."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.op = LayerChoice([nn.Linear(4, 4), nn.Identity()], return_mask=True, key="op")
        self.pick = InputChoice(2, n_chosen=1, key="pick")
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        self.replaced = self.replaced + 1
        x = x + torch.rand(()) + np.random.rand()
        y, _ = self.op(self.norm(x))
        return self.pick([y, x])


@pytest.mark.parametrize("use", ["table", "measure"])
@pytest.mark.parametrize("fails", [False, True])
def test_measuring_leaves_no_trace(use, fails):
    model = Restless()
    model.norm.eval()
    mutator = RandomMutator(model, torch.Generator().manual_seed(0))
    mutator.decide({"op": (1,), "pick": (0,)})
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

    def forward():
        model(x)
        if fails:
            raise ValueError("no more")

    def seen():
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        modes = [module.training for module in model.modules()]
        return mutator.status(), buffers, modes, torch.get_rng_state(), str(np.random.get_state())

    before, own = seen(), model.replaced
    meter = FlopMeter(mutator, forward)
    with pytest.raises(ValueError, match="no more") if fails else nullcontext():
        meter.table() if use == "table" else meter.measure({"op": (0,), "pick": (1,)})
    status, buffers, modes, rng, numbers = seen()
    assert (status, modes, numbers) == (before[0], before[2], before[4])
    assert torch.equal(rng, before[3])
    assert all(torch.equal(value, before[1][name]) for name, value in buffers.items())
    assert model.replaced is own
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    expected = model.norm(x)  # op is decided to be the identity
    assert model.op(expected)[0] is expected


def test_measuring_an_undecided_model_leaves_it_undecided():
    model = Convolutions()
    _, meter = meter_of(model, image())
    meter.measure({"op": (0,), "head": (0,)})
    with pytest.raises(ValueError, match="nothing is decided yet"):
        model(image())


def test_every_parameter_is_in_one_part():
    model = Everything()
    table = parameter_table(model)
    everything = table.fixed + sum(map(sum, table.candidates.values())) + sum(size for _, size in table.shared)
    assert everything == sum(one.numel() for one in model.parameters())
