"""The user's own Python files are loaded here, and nowhere else.

A model file is code that the user chose to run. What it imports from its own folder is found while it loads and
while its functions are called (``UserModule.imports``); otherwise ``sys.path`` and the modules of others stay as
they are, so that two model files may each have an ``ops.py`` beside them.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from nnas_core.errors import InputError, UsageError, UserCodeError

__all__ = [
    "UserModule",
    "as_user_error",
    "check_source",
    "digests",
    "ends_early",
    "load",
    "load_class",
    "split_reference",
]


@dataclass
class UserModule:
    """A loaded file or module of the user's.

    Attributes:
        reference: ``file.py`` or ``package.module`` as it was given, without ``:NAME``.
        module: the module itself.
        folder: of the file, importable while its code runs; None for an installed package.
        roots: folders of the project that are importable besides, as with ``python -m``: that of the file's outermost
            package, and the current one if the file is below it.
    """

    reference: str
    module: ModuleType
    folder: Path | None
    roots: tuple[Path, ...] = ()
    _siblings: dict[str, ModuleType] = field(default_factory=dict, repr=False)

    @property
    def modules(self) -> list[ModuleType]:
        """The module, and those that it has imported from its folders."""
        return [self.module, *self._siblings.values()]

    def get(self, name: str) -> object:
        """An attribute of the module.

        Raises:
            UserCodeError: there is none of that name (the nearest is suggested).
        """
        if hasattr(self.module, name):
            return getattr(self.module, name)
        public = [other for other in vars(self.module) if not other.startswith("_")]
        near = difflib.get_close_matches(name, public, n=1)
        raise UserCodeError(
            f"nothing is named {name!r} in it",
            where=self.reference,
            hint=f"did you mean {near[0]!r}?" if near else f"define {name} there",
        )

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """Make the module's folders importable for the block, and its modules invisible to others afterwards."""
        if self.folder is None:
            yield
            return
        folders = (self.folder, *self.roots)
        shadowed = {folder: _shadowed(folder) for folder in folders}
        # of what this can change, not of all modules: there are thousands
        before = {name: sys.modules[name] for name in self._siblings if name in sys.modules}
        before.update({name: module for found in shadowed.values() for name, module in found.items()})
        hidden = {
            name: module
            for folder, found in shadowed.items()
            for name, module in found.items()
            if name not in self._siblings
            and not any(_inside(one, module) for one in folders)
            and (folder == self.folder or name.partition(".")[0] not in sys.stdlib_module_names)
        }
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(self._siblings)
        path = [str(folder) for folder in folders]
        sys.path[:0] = path
        try:
            yield
        finally:
            own = [
                name
                for folder in folders
                for name, module in _shadowed(folder).items()
                if module is not self.module and module is not before.get(name) and _inside(folder, module)
            ]
            self._siblings.update({name: sys.modules.pop(name) for name in dict.fromkeys(own)})
            sys.modules.update(hidden)
            sys.modules.update({name: before[name] for name in self._siblings if name in before})
            for one in path:
                with contextlib.suppress(ValueError):
                    sys.path.remove(one)


_PACKAGES = ("nnas_core", "nnas_cli")
"""Packages that are never a user's: a model may lie in a checkout of nnas."""


def _shadowed(folder: Path) -> dict[str, ModuleType]:
    """The loaded modules of whose top-level name ``folder`` holds a module or package too."""
    # by the folder, not by the modules: of those there are thousands, and this runs around calls of the user's code
    try:
        there = {name.removesuffix(".py") for name in os.listdir(folder)}
    except OSError:
        return {}
    shadowed = {top for top in there.difference(_PACKAGES) if top in sys.modules and _shadows(folder, top)}
    if not shadowed:
        return {}
    return {name: module for name, module in sys.modules.copy().items() if name.partition(".")[0] in shadowed}


def _shadows(folder: Path, top: str) -> bool:
    """Returns true if ``folder`` holds a module or package of the top-level name ``top``."""
    if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
        return True
    package = sys.modules.get(top)  # a folder without __init__.py counts once it was imported as a package
    return getattr(package, "__file__", None) is None and (folder / top).is_dir() and _inside(folder, package)


def _inside(folder: Path, module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    places = [file] if file is not None else list(getattr(module, "__path__", ()))
    return any(folder in Path(place).resolve().parents for place in places)


_loaded: dict[str, UserModule] = {}


def split_reference(reference: str) -> tuple[str, str | None]:
    """``file.py:Net`` -> ``("file.py", "Net")``; without a name, ``(reference, None)``."""
    source, colon, name = reference.rpartition(":")
    if colon and name.isidentifier():
        return source, name
    return reference, None


def load(source: str) -> UserModule:
    """Import ``file.py`` or ``package.module``, once.

    A module of a project in the current folder comes before an installed one of its name, as with ``python -m``.

    Raises:
        InputError: no such file, a directory, or no Python file.
        UserCodeError: it does not compile. What it raises while it runs passes through; see ``as_user_error``.
    """
    file = Path(source) if _is_file(source) else _file_of_module(source)
    identity = source if file is None else str(file.resolve())
    if identity not in _loaded:
        _loaded[identity] = _load_installed(source) if file is None else _load_file(source, file)
    return _loaded[identity]


def _file_of_module(source: str) -> Path | None:
    """The file of ``package.module`` below the current folder."""
    if not all(part.isidentifier() for part in source.split(".")):
        return None
    place = Path(*source.split("."))
    found = (one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file())
    return next(found, None)


def check_source(source: str) -> None:
    """Refuse what is no Python file, before anything is imported; of a module's name nothing is known yet.

    Raises:
        InputError: no such file, a directory, or no Python file.
    """
    if _is_file(source):
        _python_file(source, Path(source))


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source or Path(source).exists()


def _python_file(source: str, file: Path) -> Path:
    path = file.resolve()
    if path.is_dir():
        raise InputError("is a directory, a Python file is needed", where=source)
    if not path.exists():
        raise InputError("no such file", where=source, hint="give the path of a Python file, or package.module")
    if path.suffix != ".py":
        raise InputError("is no Python file (its name must end in .py)", where=source)
    return path


def _load_file(source: str, file: Path) -> UserModule:
    path = _python_file(source, file)
    name = f"nnas_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    package, root = _package_of(path, source)
    loader = SourceFileLoader(name, str(path))
    spec = _SpecInPackage(name, loader, origin=str(path), is_package=path.name == "__init__.py")
    spec.has_location, spec.package = True, package
    if spec.submodule_search_locations is not None:
        spec.submodule_search_locations.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    current = Path.cwd().resolve()
    project = [*([root] if root is not None else []), *([current] if current in path.parents else [])]
    roots = tuple(folder for folder in dict.fromkeys(project) if folder != path.parent)
    loaded = UserModule(source, module, path.parent, roots)
    _user_folders.update({path.parent, *([root] if root is not None else [])})
    sys.modules[name] = module  # what pickle and dataclasses look classes up by
    try:
        with loaded.imports():
            loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        _explain(error, source)
        raise
    return loaded


class _SpecInPackage(ModuleSpec):
    """Of a module under a name of ours, which imports relatively to the package that its file stands in."""

    package = ""

    @property
    def parent(self) -> str:
        return self.package


def _package_of(path: Path, source: str) -> tuple[str, Path | None]:
    """The package that a file stands in, and the folder that this is imported from; ``""`` and None if in none.

    A reference ``package.module`` says so. Of a file, folders with an ``__init__.py`` are packages, else those between
    the current folder and the file, if all have names that can be imported.
    """
    current = Path.cwd().resolve()
    if not source.endswith(".py"):
        return source if path.name == "__init__.py" else source.rpartition(".")[0], current
    names: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    if not names and current in folder.parents:
        names = list(folder.relative_to(current).parts)
        folder = current
    return (".".join(names), folder) if names and all(map(str.isidentifier, names)) else ("", None)


def _load_installed(source: str) -> UserModule:
    try:
        module = importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not (source == error.name or source.startswith(error.name + ".")):
            raise
        raise InputError(
            "no such file, and no module of that name", where=source, hint="give file.py or package.module"
        ) from error
    file = getattr(module, "__file__", None)
    if file is not None:
        _user_folders.add(Path(file).resolve().parent)
    return UserModule(source, module, None)


def _explain(error: BaseException, source: str) -> None:
    if isinstance(error, SyntaxError):
        raise UserCodeError(
            f"{type(error).__name__}: {error.msg}", where=f"{error.filename or source}:{error.lineno}"
        ) from error
    if isinstance(error, SystemExit):
        raise UserCodeError(
            "called sys.exit() while it was imported",
            where=source,
            hint='put what the file does as a script under `if __name__ == "__main__":`',
        ) from error


def digests(first: UserModule, references: Iterable[str | None]) -> dict[str, str]:
    """Digests of the files that loaded modules are made of: their own, and those of the project that they import.

    Args:
        first: paths are given from the folder of its file.
        references: of further modules; those that are not loaded, as names of ours are, say nothing.

    Returns:
        Path -> ``sha256:`` and the hash of the content.
    """
    sources = {split_reference(reference)[0] for reference in references if reference is not None}
    others = [one for one in _loaded.values() if one.reference in sources]
    found: dict[str, str] = {}
    for user in [first, *others]:
        for module in user.modules:
            file = getattr(module, "__file__", None)
            if file is not None and Path(file).is_file():
                name = os.path.relpath(file, first.folder or Path(file).parent)
                found[name] = f"sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
    return found


def load_class(reference: str) -> type[object]:
    """The class that ``file.py:Class`` names.

    Raises:
        InputError, UserCodeError, UsageError: it cannot be loaded, has no such name, or is no class.
    """
    source, name = split_reference(reference)
    if name is None:
        raise UsageError(f"{reference!r} names no class", hint="write file.py:Class")
    found = load(source).get(name)
    if not isinstance(found, type):
        raise UserCodeError(f"{name} is no class", where=source)
    return found


# ---- whose fault was it?

_RUNS_THE_MODEL = "default_forward_batch"
"""The function of ``nnas_core.training.task`` below which everything is the user's model."""

_user_folders: set[Path] = set()
_ROOT = Path(__file__).resolve().parents[2]
_OURS = {_ROOT / "nnas_core", _ROOT / "nnas_cli"}
_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD = Path(os.__file__).resolve().parent


def _first_user_frame(error: BaseException) -> TracebackType | None:
    """The first frame in a file of the user's; a model of torch's own layers fails without one, but below ours."""
    model = None
    step = error.__traceback__
    while step is not None:
        if _is_user_code(step.tb_frame.f_code):
            return step
        if step.tb_frame.f_code.co_name == _RUNS_THE_MODEL:
            model = step
        step = step.tb_next
    return model


def _is_user_code(code: CodeType) -> bool:
    return _is_users(code.co_filename)


def _is_users(file: str) -> bool:
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    if not _OURS.isdisjoint(path.parents) or not _INSTALLED.isdisjoint(path.parts) or _STANDARD in path.parents:
        return False
    return any(folder in path.parents for folder in _user_folders)


def _in_loader_process(error: BaseException) -> bool:
    return re.match(r"Caught (\w+) in DataLoader worker process", str(error)) is not None


def ends_early(end: StopIteration) -> bool:
    """Return true if no iterator came to its end, but a function of the user's raised what looks like that."""
    step = _first_user_frame(end)
    return _in_loader_process(end) or (step is not None and step.tb_frame.f_code.co_name != "__next__")


def as_user_error(error: BaseException) -> UserCodeError | None:
    """The error as the user's own, if it passed through their code; with their traceback from their frame on."""
    if _in_loader_process(error):  # torch hands on the traceback as text
        text = str(error)
        frames = re.findall(r'File "(.+)", line (\d+), in ', text)
        where = next((f"{file}:{line}" for file, line in frames if _is_users(file)), None)
        failure = UserCodeError(f"data loading failed: {text.strip().splitlines()[-1]}", where=where)
        return failure.with_traceback_of_user(f"{text}\n")
    if str(error) == "generator raised StopIteration" and error.__cause__ is not None:
        return as_user_error(error.__cause__)
    step = _first_user_frame(error)
    if step is None:
        return None
    lines = ["Traceback (most recent call last):\n", *traceback.format_tb(step)]
    lines += traceback.format_exception_only(type(error), error)
    message = str(error).strip().splitlines()
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()) if note.startswith("with "))
    return UserCodeError(
        (f"{type(error).__name__}: {message[0]}" if message else type(error).__name__) + notes,
        where=f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}",
    ).with_traceback_of_user("".join(lines))
