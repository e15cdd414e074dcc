"""What is said of a study that goes on without this process: in the background, or by others that share it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnas_cli import next_steps
from nnas_cli.output import Output

if TYPE_CHECKING:
    from nnas_core.study.cooperation import SharedResult

__all__ = ["tell_background", "tell_left"]


def tell_background(out: Output, study: str, storage: str, process: int, log: Path) -> None:
    """Say where a study goes on, how to follow and how to stop it."""
    if out.as_json:
        document = {"study": study, "storage": storage, "process": process, "log": str(log)}
        out.report("tune-detach-report", document)
        return
    out.note(f"study {study!r} runs in the background, process {process}; its output goes to {log}")
    out.note(f"follow it by `{next_steps.followed(study, storage)}`, or `tail -f {log}`")
    out.note(f"stop it by `{next_steps.stopped(study, storage)}`")


def tell_left(out: Output, joined: SharedResult, reason: str, document: dict[str, object]) -> None:
    """Say how this process ended; the last one says how the study did."""
    ended = "1 trial" if joined.evaluated == 1 else f"{joined.evaluated} trials"
    others = "1 other process goes" if joined.others == 1 else f"{joined.others} other processes go"
    out.note(f"{ended} of {joined.study.name} ended here; {reason}")
    out.note(f"{others} on, and the last one has the best architecture")
    out.note(f"next: {next_steps.followed(str(document['study']), str(document['storage']))}")
    if out.as_json:
        ended_here = {"reason": joined.reason, "evaluated": joined.evaluated, "others": joined.others}
        out.report("tune-join-report", {**document, **ended_here})
