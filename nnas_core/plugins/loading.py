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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from nnas_core.errors import InputError, UsageError, UserCodeError

__all__ = ["UserModule", "as_user_error", "load", "load_class", "split_reference"]


@dataclass
class UserModule:
    """A loaded file or module of the user's.

    Attributes:
        reference: ``file.py`` or ``package.module`` as it was given, without ``:NAME``.
        module: the module itself.
        folder: importable while its code runs; None for an installed package.
    """

    reference: str
    module: ModuleType
    folder: Path | None
    _siblings: dict[str, ModuleType] = field(default_factory=dict, repr=False)

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
        """Make the module's folder importable for the block, and its modules invisible to others afterwards."""
        if self.folder is None:
            yield
            return
        hidden = {
            name: module
            for name, module in _shadowed(self.folder).items()
            if name not in self._siblings and not _inside(self.folder, module)
        }
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(self._siblings)
        sys.path.insert(0, str(self.folder))
        try:
            yield
        finally:
            own = [
                name
                for name, module in _shadowed(self.folder).items()
                if module is not self.module and _inside(self.folder, module)
            ]
            self._siblings.update({name: sys.modules.pop(name) for name in own})
            sys.modules.update(hidden)
            with contextlib.suppress(ValueError):
                sys.path.remove(str(self.folder))


def _shadowed(folder: Path) -> dict[str, ModuleType]:
    """The loaded modules of whose top-level name ``folder`` holds a module or package too."""
    loaded = list(sys.modules.items())
    try:
        there = set(os.listdir(folder))
    except OSError:
        return {}
    tops = {name.partition(".")[0] for name, _ in loaded}
    # one look at the folder: there are thousands of modules, and this runs around every call of the user's code
    shadowed = {top for top in tops if (top in there or f"{top}.py" in there) and _shadows(folder, top)}
    return {name: module for name, module in loaded if name.partition(".")[0] in shadowed}


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

    Raises:
        InputError: no such file, a directory, or no Python file.
        UserCodeError: it does not compile. What it raises while it runs passes through; see ``as_user_error``.
    """
    is_file = source.endswith(".py") or "/" in source or Path(source).exists()
    identity = str(Path(source).resolve()) if is_file else source
    if identity not in _loaded:
        _loaded[identity] = _load_file(source) if is_file else _load_installed(source)
    return _loaded[identity]


def _load_file(source: str) -> UserModule:
    path = Path(source).resolve()
    if path.is_dir():
        raise InputError("is a directory, a Python file is needed", where=source)
    if not path.exists():
        raise InputError("no such file", where=source, hint="give the path of a Python file, or package.module")
    if path.suffix != ".py":
        raise InputError("is no Python file (its name must end in .py)", where=source)
    name = f"nnas_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError("cannot be imported", where=source)
    module = importlib.util.module_from_spec(spec)
    loaded = UserModule(source, module, path.parent)
    _user_folders.add(path.parent)
    sys.modules[name] = module  # what pickle and dataclasses look classes up by
    try:
        with loaded.imports():
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        _explain(error, source)
        raise
    return loaded


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
    if code.co_filename.startswith("<"):
        return False
    path = Path(code.co_filename).resolve()
    if not _OURS.isdisjoint(path.parents):
        return False
    return "site-packages" not in path.parts and any(folder in path.parents for folder in _user_folders)


def as_user_error(error: BaseException) -> UserCodeError | None:
    """The error as the user's own, if it passed through their code; with their traceback from their frame on."""
    in_worker = re.match(r"Caught (\w+) in DataLoader worker process", str(error))
    if in_worker is not None:  # torch hands on the worker's traceback as text
        failure = UserCodeError(f"data loading failed: {str(error).strip().splitlines()[-1]}")
        return failure.with_traceback_of_user(f"{error}\n")
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
