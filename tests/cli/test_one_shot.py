"""``nnas search`` with algorithms that train an architecture: what is refused, what diverges, what goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnas_core.runs.checkpoint import read_checkpoint
from tests.cli.test_search import assert_same_result
from tests.cli_support import MODEL, Cli

SEARCH = ("search", "model.py", "--mutator", "darts", "--epochs", 3, "--batch-size", 8)

OWN = '''
from nnas_core.training.bilevel import BilevelTrainer


class Late(BilevelTrainer):
    """The gradient of the logits becomes NaN in the second epoch, the loss stays finite."""

    def architecture_gradients(self, batch, held_out):
        factor = float("nan") if self.epoch == 1 else 1.0
        return [factor * one for one in super().architecture_gradients(batch, held_out)]


class Never(BilevelTrainer):
    """The architecture stays as it is."""

    def architecture_step(self, batch, held_out):
        pass


class Needy(BilevelTrainer):
    def __init__(self, *first, width: int, **more):
        super().__init__(*first, **more)


class NoTrainer:
    pass
'''

ZERO = """

class Nothing(nn.Module):
    def forward(self, x):
        return 0 * x

    def is_zero_layer(self):
        return True


def build_model():
    net = Net()
    net.act = LayerChoice([Nothing(), Nothing()], key="act")
    return net


def build_one():
    net = Net()
    net.act = LayerChoice([nn.ReLU()], key="act")
    return net
"""


def logits(run: str) -> list[list[float]]:
    """The architecture parameters in a run's checkpoint."""
    found: list[list[float]] = read_checkpoint(Path(run, "checkpoint.pt"))["state"]["mutator"]["logits"].tolist()
    return found


def test_the_architecture_is_trained_and_written(nnas: Cli, small_model: Path) -> None:
    nnas.ok(*SEARCH, "--mutator-arg", "learning_rate=0.1", "-o", "run")
    assert max(abs(value) for row in logits("run") for value in row[:2]) > 0.1  # it began below 0.01
    exported = json.loads(nnas.ok("export", "run/checkpoint.pt").out)
    assert exported == json.loads(Path("run/architecture.json").read_text())
    assert {key: sum(mask) for key, mask in exported.items()} == {"op": 1, "act": 1, "link": 1}


def test_a_stopped_search_goes_on_to_the_bit(nnas: Cli, small_model: Path) -> None:
    Path("stop.py").write_text(
        "from nnas_core.mutators.darts import DartsTrainer\n\n\n"
        "class Stopping(DartsTrainer):\n"
        "    def weight_step(self, batch):\n"
        "        super().weight_step(batch)\n"
        "        if self.step == 8:\n"
        "            raise RuntimeError('power cut')\n"
    )
    nnas.ok(*SEARCH, "-o", "whole")
    stopped = nnas(*SEARCH, "--trainer", "stop.py:Stopping", "--checkpoint-every", 4, "-o", "run")
    assert stopped.code == 4
    assert "power cut" in stopped.err
    config = json.loads(Path("run/config.json").read_text())
    config["search"]["trainer"] = None  # the repaired machine
    Path("run/config.json").write_text(json.dumps(config))
    nnas.ok("search", "--resume", "run")
    assert_same_result("whole", "run")
    assert logits("whole") == logits("run")


def test_the_trainer_can_be_exchanged(nnas: Cli, small_model: Path) -> None:
    Path("own.py").write_text(OWN)
    nnas.ok(*SEARCH, "--trainer", "own.py:Never", "-o", "never")
    nnas.ok(*SEARCH, "--trainer", "random", "-o", "plain")
    assert logits("never") == logits("plain")
    nnas.ok(*SEARCH, "-o", "trained")
    assert logits("trained") != logits("plain")


def test_bfloat16_and_float64(nnas: Cli, small_model: Path) -> None:
    for precision, dtype in (("float64", "torch.float64"), ("bfloat16", "torch.float32")):
        nnas.ok(*SEARCH, "--precision", precision, "-o", precision)
        state = read_checkpoint(Path(precision, "checkpoint.pt"))["state"]
        dtypes = {str(one.dtype) for part in ("model", "mutator") for one in state[part].values()}
        assert {one for one in dtypes if "float" in one} == {dtype}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--mutator", "dart"),
            2,
            "no mutator is named 'dart'\nhint: did you mean 'darts'? there are ",
        ),
        (
            ("--mutator-arg", "learning_rate=fast"),
            2,
            "the mutator 'darts' cannot take learning_rate=\"fast\", it must be a number\nhint: it takes ",
        ),
        (
            ("--mutator-arg", "learn_rate=1"),
            2,
            "the mutator 'darts' takes no argument 'learn_rate'\nhint: did you mean 'learning_rate'? it takes ",
        ),
        (
            ("--mutator-arg", "learning_rate=-1"),
            2,
            "learning_rate=-1.0 is out of range\nhint: it must be in (0, inf)\n",
        ),
        (("--mutator", "random", "--trainer", "dart"), 2, "no mutator is named 'dart'\nhint: did you mean 'darts'? "),
        (
            ("--mutator", "random", "--trainer", "darts"),
            4,
            (
                "RandomMutator has no parameters to train\nhint: use a trainer that trains the model alone, or give "
                "the mutator an nn.Parameter\n"
            ),
        ),
        (
            ("--trainer", "own.py:NoTrainer"),
            4,
            "own.py:NoTrainer: NoTrainer is no Trainer\nhint: derive it from nnas_core.Trainer\n",
        ),
        (
            ("--trainer", "own.py:Needy"),
            2,
            "the trainer 'own.py:Needy' needs the argument 'width'\nhint: give it a default\n",
        ),
        (
            ("--batch-size", 16),
            4,
            (
                "model.py: the 12 validation samples make no full batch of 16, which this algorithm trains the "
                "architecture on\nhint: choose a smaller --batch-size, or a larger --valid-fraction\n"
            ),
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    nnas: Cli, small_model: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    Path("own.py").write_text(OWN)
    result = nnas(*SEARCH, *arguments, "-o", "run")
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"nnas: error: {message}")
    assert len(result.err.splitlines()) == 2
    assert not Path("run/config.json").exists()


def test_a_choice_of_nothing_but_zero_operations_is_refused(nnas: Cli, small_model: Path) -> None:
    Path("model.py").write_text(MODEL + ZERO)
    result = nnas(*SEARCH, "-o", "run")
    assert (result.code, result.err) == (
        4,
        (
            "nnas: error: act: 'act' has only zero operations as candidates: nothing to learn there\n"
            "hint: give it a candidate that computes something\n"
        ),
    )


def test_a_choice_of_one_candidate_is_decided(nnas: Cli, small_model: Path) -> None:
    Path("model.py").write_text(MODEL + ZERO)
    nnas.ok("search", "model.py:build_one", *SEARCH[2:], "-o", "run")
    assert json.loads(Path("run/architecture.json").read_text())["act"] == [True]


def test_an_architecture_that_is_not_finite_ends_the_search_and_keeps_the_good_checkpoint(
    nnas: Cli, small_model: Path
) -> None:
    Path("own.py").write_text(OWN)
    result = nnas(*SEARCH, "--trainer", "own.py:Late", "-o", "run")
    assert result.code == 5
    assert result.err.splitlines()[1:] == [
        (
            "nnas: error: the gradient of the architecture is not finite (nan) at step 7, epoch 2; "
            "the last good checkpoint is run/checkpoint.pt"
        ),
        "hint: lower the learning rate, set --clip-grad, or look for bad input data",
    ]
    assert read_checkpoint("run/checkpoint.pt")["header"]["progress"]["epoch"] == 1
