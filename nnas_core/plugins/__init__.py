"""The user's code and the algorithms: files are loaded, names become classes, arguments are checked.

    file.py:Net      --> loading  --> a UserModule, and what it defines
    "darts"          --> registry --> an Entry, and its class   <-- signatures: its options, without importing it
    width=3          --> arguments --> construct(cls, ...)

Begin with ``find``: it turns a registered name or ``file.py:Class`` into a class. No list of algorithms is kept by
hand: the registry reads the folders ``mutators``, ``tuners`` and ``assessors``, and entry points of packages.
"""

from nnas_core.plugins.arguments import (
    check_arguments,
    check_count,
    check_flag,
    check_range,
    construct,
    sign_of,
)
from nnas_core.plugins.loading import UserModule, as_user_error, load, load_class, split_reference
from nnas_core.plugins.registry import Entry, Ranking, entries, find, find_subclass, measured
from nnas_core.plugins.signatures import Option, options_of

__all__ = [
    "Entry",
    "Option",
    "Ranking",
    "UserModule",
    "as_user_error",
    "check_arguments",
    "check_count",
    "check_flag",
    "check_range",
    "construct",
    "entries",
    "find",
    "find_subclass",
    "load",
    "load_class",
    "measured",
    "options_of",
    "sign_of",
    "split_reference",
]
