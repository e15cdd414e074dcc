"""``nnas info``."""

from __future__ import annotations

import importlib.metadata
import platform

import click

from nnas_cli import options
from nnas_cli.help_sections import SectionedCommand
from nnas_cli.imports import without_collection
from nnas_cli.output import Output
from nnas_core import __version__

__all__ = ["command"]

_PACKAGES = ("torch", "numpy", "click", "rich", "jsonschema", "SQLAlchemy")


@click.command("info", cls=SectionedCommand)
@options.with_output("Write the answer to PATH; - is standard output.")
@options.common_without_seed
def command(output: str, out: Output) -> None:
    """Print versions and devices for bug reports.

    \b
    Examples:
      nnas info
      nnas info --json
    """
    with without_collection():
        import torch

    devices = ["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]
    document = {
        "nnas": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": devices,
        "threads": torch.get_num_threads(),
    }
    if out.as_json or output != "-":
        out.report("info-report", document, output)
        return
    rows = [[name, str(document[name])] for name in ("nnas", "python", "platform", "threads")]
    rows += [[name, importlib.metadata.version(name)] for name in _PACKAGES]
    rows.append(["devices", ", ".join(devices)])
    out.table(["what", "value"], rows, answer=True)
