"""Five thousand damaged files and hostile options: each is answered as specified, and nothing of value is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_support import Cli
from tests.fuzz.attacks import ATTACKS, prepare
from tests.fuzz.campaign import Campaign

SEED = 12

COUNTS = {
    "space": 750,
    "architecture": 550,
    "latency": 350,
    "results": 600,
    "database": 400,
    "config": 600,
    "run-folder": 200,
    "checkpoint": 200,
    "option": 1100,
    "argument": 250,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder, with good files; attacks put their own beside them."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare(Cli())
    return folder


def test_every_kind_of_attack_is_counted() -> None:
    assert set(COUNTS) == set(ATTACKS)
    assert sum(COUNTS.values()) >= 5000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ATTACKS)
def test_attacks_end_as_specified(prepared: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(prepared)
    assert Campaign(kind, SEED).run(0, COUNTS[kind]) == []
