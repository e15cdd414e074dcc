"""Options of constructors, read from text; and equal to what the imported classes say."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import sys
from pathlib import Path

import pytest

from nnas_core.plugins import registry
from nnas_core.plugins.signatures import Option, options_of

BASE = '''
LIMIT: float = 2.5
ALIAS = LIMIT


class BaseMutator:
    """A base.

    Args:
        model: to be bound.
        rate, decay: of Adam. More about it.
        old: as it was.
    """

    def __init__(self, model, generator=None, *, rate: float = 1e-3, decay: float = LIMIT, old: bool = True):
        pass
'''

ALL = ("model", "generator", "rate", "decay", "old")


def read(text, cls="MineMutator", ours=(), leading=0, **modules):
    texts = {"mine": text, "base": BASE, **modules}
    return options_of("mine", cls, texts.get, ours, leading)


def names(options):
    return tuple(option.name for option in options)


def test_name_default_type_and_meaning():
    options = read(
        '''
class MineMutator:
    """Mine.

    Args:
        count (int): how many, e.g. 3; of
            all, at most ``LIMIT``. It matters.
        must: be given.

    Raises:
        mode: is no argument.
    """

    def __init__(self, must, count: int | None = 10_000, *others, mode: Literal["a", "b"] = "a", pair=(1, None)):
        pass
'''
    )
    assert options == (
        Option("must", None, "", "be given."),
        Option("count", "10000", "int | None", "how many, e.g. 3; of all, at most ``LIMIT``."),
        Option("mode", '"a"', "Literal['a', 'b']", ""),
        Option("pair", "[1, null]", "", ""),
    )


def test_a_default_may_be_a_constant_of_the_module_or_anything():
    options = read("A = B = 3\nC = A\nclass MineMutator:\n    def __init__(self, a=A, b=B, c=C, d=len, e=f(1)): ...")
    assert [option.default for option in options] == ["3", "3", "C", "len", "f(1)"]


def test_what_nnas_fills_is_no_option():
    text = "class MineMutator:\n    def __init__(self, supernet, generator=None, *, rate=1): ..."
    assert names(read(text, ours={"generator"}, leading=1)) == ("rate",)


def test_the_constructor_itself_may_document():
    docstring = '"""Make.\n\n        Args:\n            rate: r.\n        """'
    text = f"class MineMutator:\n    def __init__(self, rate=1):\n        {docstring}"
    assert read(text)[0].summary == "r."


@pytest.mark.parametrize(
    "text",
    [
        "from base import BaseMutator\nclass MineMutator(BaseMutator): ...",
        "from base import BaseMutator as Other\nclass MineMutator(Other): ...",
        "import base\nclass MineMutator(base.BaseMutator): ...",
        "import base as b\nclass MineMutator(b.BaseMutator): ...",
        "from base import BaseMutator\nclass Between(BaseMutator): ...\nclass MineMutator(Between): ...",
        "from base import BaseMutator as MineMutator",
        "from far import Unknown\nfrom base import BaseMutator\nclass MineMutator(Unknown, BaseMutator): ...",
        "from base import BaseMutator\nclass MineMutator(BaseMutator):\n    def __init__(self, *args, **more): ...",
    ],
)
def test_a_constructor_is_inherited(text):
    options = read(text)
    assert names(options) == ALL
    assert options[3] == Option("decay", "2.5", "float", "of Adam.")


def test_relative_imports_are_followed():
    texts = {"pack.mine": "from .base import BaseMutator\nclass MineMutator(BaseMutator): ...", "pack.base": BASE}
    assert names(options_of("pack.mine", "MineMutator", texts.get)) == ALL


def test_documentation_is_inherited_by_name_and_may_be_replaced():
    options = read(
        '''
from base import BaseMutator
class MineMutator(BaseMutator):
    """Mine.

    Args:
        rate: slower.
        new: one.
    """

    def __init__(self, model, *, rate: float = 1e-4, old=False, new=0): ...
'''
    )
    assert [(one.name, one.summary) for one in options[1:]] == [
        ("rate", "slower."),
        ("old", "as it was."),
        ("new", "one."),
    ]


def test_keywords_that_are_handed_on_are_options_of_the_base():
    text = "from base import BaseMutator\nclass MineMutator(BaseMutator):\n"
    options = read(text + "    def __init__(self, m, *, old=0, **more): ...")
    assert names(options) == ("m", "old", "model", "generator", "rate", "decay")
    assert options[1].default == "0"


@pytest.mark.parametrize(
    "text",
    ["class Other: ...", "class (", "from far import MineMutator", "from mine import MineMutator", "x = 1\x00"],
)
def test_a_class_that_is_not_found_has_unknown_options(text):
    assert read(text) is None


def test_classes_that_derive_in_a_circle_come_to_an_end():
    assert read("class MineMutator(MineMutator): ...") == ()


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in ("mutators", "tuners", "assessors") for name in registry.entries(group)],
)
class TestEveryAlgorithm:
    """What is read is what the class has when it is imported."""

    def test_has_the_options_that_it_takes(self, group, name):
        entry = registry.entries(group)[name]
        parameters = inspect.signature(entry.load()).parameters
        ours = {"model", "generator", "seed", "optimize_mode"}
        expected = {
            key: None if one.default is one.empty else json.loads(json.dumps(one.default))
            for key, one in parameters.items()
            if key not in ours
        }
        found = {one.name: one.default if one.default is None else json.loads(one.default) for one in entry.options()}
        assert found == expected

    def test_documents_each_of_them(self, group, name):
        assert [one.name for one in registry.entries(group)[name].options() if not (one.summary and one.type)] == []


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package of somebody else, with two mutators; importing it fails."""
    package = tmp_path / "site" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')\n")
    (package / "fine.py").write_text(
        '"""Find.\n\nSource: Somebody, "Something".\n"""\n'
        "from nnas_core.mutators.random import RandomMutator\n"
        "from .base import Base\n"
        'class Fine(Base):\n    """F.\n\n    Args:\n        depth: how deep.\n    """\n'
        "    def __init__(self, net, generator=None, *, depth: int = 3): ...\n"
        "class Plain(RandomMutator): ...\n"
    )
    (package / "broken.py").write_text("class (\n")
    info = tmp_path / "site" / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    points = ["fine = theirs.fine:Fine", "plain = theirs.fine:Plain", "broken = theirs.broken:B", "far = gone.far:Far"]
    (info / "entry_points.txt").write_text("\n".join(["[nnas.mutators]", *points, ""]))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    importlib.invalidate_caches()
    registry.entries.cache_clear()
    yield
    monkeypatch.undo()
    registry.entries.cache_clear()


class TestPackages:
    def test_say_what_their_files_say(self, installed):
        entry = registry.entries("mutators")["fine"]
        assert (entry.summary, entry.source) == ("Find. (from the package theirs)", 'Somebody, "Something".')
        assert entry.options() == (Option("depth", "3", "int", "how deep."),)

    def test_may_derive_from_ours(self, installed):
        assert registry.entries("mutators")["plain"].options() == ()

    @pytest.mark.parametrize("name", ["broken", "far"])
    def test_that_cannot_be_read_are_listed_nevertheless(self, installed, name):
        entry = registry.entries("mutators")[name]
        assert (entry.summary, entry.source, entry.options()) == ("from the package theirs", "", None)

    def test_may_not_take_a_name_of_ours(self, installed, tmp_path):
        (Path(tmp_path) / "site" / "theirs-1.0.dist-info" / "entry_points.txt").write_text(
            "[nnas.mutators]\nspos = theirs.fine:Fine\n"
        )
        importlib.invalidate_caches()
        registry.entries.cache_clear()
        with pytest.raises(registry.UserCodeError, match="claims the name 'spos'"):
            registry.entries("mutators")
