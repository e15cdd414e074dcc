"""No test leaks into another one, and none is skipped unnoticed: checked here, for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator

# Before torch is imported: one thread a process, so that sums keep their order.
os.environ["OMP_NUM_THREADS"] = "1"
# What a developer's or CI's shell may hold and nnas listens to; the defaults are what is tested.
for _name in list(os.environ):
    if _name.startswith("NNAS_") or _name in {"CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR"}:
        del os.environ[_name]

import random  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

# Set by pytest, by the import of scikit-learn, and by torch's first optimizer and first compilation.
_OF_LIBRARIES = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}
_OF_LIBRARIES |= {"_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"}


@pytest.fixture(autouse=True)
def environment_is_left_alone() -> Iterator[None]:
    """Fail a test that leaves environment variables changed."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    leaked = sorted(
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name) and name not in _OF_LIBRARIES
    )
    for name in leaked:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    if leaked:
        pytest.fail(
            f"the test leaves environment variables changed: {', '.join(leaked)}; use monkeypatch.setenv",
            pytrace=False,
        )


@pytest.fixture(autouse=True)
def global_randomness_is_left_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start every test from the same global random states, and fail one that changes them.

    Drawing from torch's generator is allowed, because every new ``nn.Linear`` does; seeding it anew is not.
    A test that means to do either is marked ``global_random``.
    """
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)  # torch.manual_seed also notes a stack for each kind of accelerator
    before = _states()
    yield
    after = _states()
    random.setstate(saved[0])
    np.random.set_state(saved[1])
    torch.set_rng_state(saved[2])
    changed = [name for name in before if before[name] != after[name]]
    if changed and request.node.get_closest_marker("global_random") is None:
        pytest.fail(
            f"the test changes the global random state of {', '.join(changed)}; pass a generator, "
            "wrap torch.manual_seed in torch.random.fork_rng(), or mark the test global_random",
            pytrace=False,
        )


def _states() -> dict[str, object]:
    name, words, *rest = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (name, words.tobytes(), *rest),
        "torch (seed)": torch.initial_seed(),
    }


# What costs time only once should not cost it in each process, nor in each test.


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests with a Ray cluster first, in whatever order: then one process has all of them, and one cluster."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


def pytest_collection_finish() -> None:
    """Spares the garbage collector thousands of tests and all that was imported, which stay to the end."""
    gc.collect()
    gc.freeze()


# A skipped test is a check that nobody runs. Without a GPU some cannot run, so those alone may be skipped.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # Kept on the report, because with xdist only the reports reach the process that decides.
    report.may_be_skipped = item.get_closest_marker("gpu") is not None or hasattr(report, "wasxfail")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: a whole module is skipped; mark its tests `gpu`, or let them run"
    return report


class _Skips:
    """Collects the skipped tests of the whole run, wherever they ran."""

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not getattr(report, "may_be_skipped", False):
            self.refused.add(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.refused:
            terminalreporter.section("error: skipped, and not marked gpu", red=True, bold=True)
            for nodeid in sorted(self.refused):
                terminalreporter.line(nodeid)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Skips(), "skips")
