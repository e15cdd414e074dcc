"""Every failure that nnas reports on purpose is one of these classes, and each knows its exit code.

    NnasError
    +-- UsageError          2   the call itself cannot work (options, names, combinations)
    +-- InputError          3   a file or document is not what it should be
    |   +-- ArchitectureError   an architecture does not fit its search space
    +-- UserCodeError       4   the user's module failed to import, build, or run
    |   +-- SpaceError          the mutables of a model make no search space
    |   +-- BindingError        a mutator and a model are not connected as needed
    |   +-- DecisionError       a mutator returned masks that do not fit its model
    +-- NoResultError       5   the work ended without a usable result
    +-- EnvironmentFailure  6   disk, permissions, memory, storage; a retry may help
    +-- Interrupted         130 / 143   a signal ended the work, its state is saved

A message names a parameter in backquotes, as in "`epochs` must be positive"; the command line writes its option there.
Other code in backquotes is more than one lower-case word.

Some are also the built-in class that NNI 1.x raised in the same place, for programs which catch those.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "ArchitectureError",
    "BindingError",
    "DecisionError",
    "EnvironmentFailure",
    "ExitCode",
    "InputError",
    "Interrupted",
    "NnasError",
    "NnasWarning",
    "NoResultError",
    "SpaceError",
    "UsageError",
    "UserCodeError",
    "listed",
    "shortened",
]


class ExitCode(enum.IntEnum):
    """A command ends with one of these, which a shell sees; part of the public contract."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    INPUT = 3
    USER_CODE = 4
    NO_RESULT = 5
    ENVIRONMENT = 6
    BUG = 70
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


class NnasWarning(UserWarning):
    """Something was accepted that may not mean what its author thinks."""


_MOST_LINES = 50
_MOST_CHARACTERS = 1000


def shortened(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Returns ``text``, or of one that has more than ``most`` characters the first and ``...``."""
    return text if len(text) <= most else text[: most - 3] + "..."


def listed(problems: Sequence[str], *, and_more: bool = False) -> list[str]:
    """Returns what people read of a list: its first lines, each shortened, and how many more there are.

    Args:
        problems: one line each.
        and_more: they are not all, and nobody counted the others.
    """
    if len(problems) <= _MOST_LINES and not and_more:
        return [shortened(problem) for problem in problems]
    shown = problems[: _MOST_LINES - 1]
    left = max(len(problems) - len(shown), 1)
    return [*map(shortened, shown), f"... and {'at least ' if and_more else ''}{left} more"]


class NnasError(Exception):
    """A failure with one line that says what happened, and where.

    Args:
        message: what was given and what was expected; lower case, no final stop.
        where: the file, key or path that the message is about.
        hint: what to do, as an imperative.
        problems: every single problem when one document has several, sorted by the caller; it keeps the first 50.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = shortened(message)
        self.where = where
        self.hint = hint
        self.problems = tuple(listed(problems))

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])


class UsageError(NnasError):
    """The call cannot work as it was made: an unknown name, a missing or contradictory option."""

    exit_code = ExitCode.USAGE


class InputError(NnasError):
    """A file or document is missing, damaged, of another kind, or breaks its schema."""

    exit_code = ExitCode.INPUT


class ArchitectureError(InputError, ValueError, RuntimeError):
    """An architecture does not fit its search space."""


class UserCodeError(NnasError):
    """The user's module failed to import, build, or run.

    ``user_traceback`` holds their traceback from their own first frame on, or is empty.
    """

    exit_code = ExitCode.USER_CODE

    user_traceback: str = ""

    def with_traceback_of_user(self, text: str) -> UserCodeError:
        """Keep ``text`` in ``user_traceback``, and return the error."""
        self.user_traceback = text
        return self


class SpaceError(UserCodeError, RuntimeError):
    """The mutables of a model do not make a search space."""


class BindingError(UserCodeError, RuntimeError, ValueError):
    """A mutable is called without its mutator, or a model is bound twice."""


class DecisionError(UserCodeError, ValueError):
    """A mutator returned masks that do not fit the model it is bound to."""


class NoResultError(NnasError):
    """The work ended without a usable result: it diverged, or nothing succeeded."""

    exit_code = ExitCode.NO_RESULT


class EnvironmentFailure(NnasError):
    """The machine refused: disk full, no permission, out of memory, storage busy."""

    exit_code = ExitCode.ENVIRONMENT


class Interrupted(NnasError):
    """A signal ended the work after its state was saved.

    Args:
        signal_number: 2 (SIGINT) or 15 (SIGTERM).
        message, hint: as in ``NnasError``; the hint says how to resume.
    """

    def __init__(self, signal_number: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.signal_number = signal_number

    @property
    def code(self) -> ExitCode:
        """The shell's convention: 128 plus the signal."""
        return ExitCode.INTERRUPTED if self.signal_number == 2 else ExitCode.TERMINATED
