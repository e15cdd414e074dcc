"""The help of a command shows its options in sections, the same ones in every command."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["SECTIONS", "SectionedCommand"]

SECTIONS: dict[str, tuple[str, ...]] = {
    "Algorithm": ("mutator", "mutator_arg", "trainer", "tuner", "tuner_arg", "derive"),
    "Comparison": ("train", "budget", "fail_under", "checklist"),
    "Which architectures": ("smallest", "largest", "random", "count"),
    "What is asked for": ("constraint", "objective", "latency_table", "max_parameters", "max_macs", "max_latency_ms"),
    "What a trial is": ("train_epochs", "trial_command", "trial_dir", "optimize_mode"),
    "Model and data": (
        "model",
        "model_arg",
        "task",
        "architecture",
        "checkpoint",
        "recalibrate",
        "on",
        "input_shape",
        "batch_size",
        "workers",
        "valid_fraction",
        "drop_last",
        "try_candidates",
    ),
    "Training": (
        "epochs",
        "clip_grad",
        "learning_rate",
        "momentum",
        "weight_decay",
        "schedule",
        "min_learning_rate",
        "init",
        "seeds",
    ),
    "Recipe": ("drop_path", "cutout", "mixup", "label_smoothing", "auxiliary_weight", "ema"),
    "Device and speed": ("device", "threads", "seconds", "precision", "memory_format", "compile", "recompute"),
    "Limits": ("trials", "duration", "max_failures", "attempts", "trial_timeout", "linger"),
    "Early stopping": ("assessor", "assessor_arg"),
    "Where trials run": (
        "concurrency",
        "gpus",
        "engine",
        "ray_address",
        "trial_threads",
        "trial_log_dir",
    ),
    "Study": ("study", "storage", "resume", "join", "wait", "retry_failed", "detach"),
    "Which trials": ("sort", "head", "tail", "state", "best", "pareto", "attempt"),
    "Files of the network": ("weights", "exported", "onnx", "opset", "python"),
    "Checks": ("space", "kind", "print_schema"),
    "What is shown": ("costs",),
    "Run folder": ("checkpoint_every",),
    "Result": (
        "output",
        "force",
        "format",
        "as_architecture",
        "optuna",
        "top",
        "once",
        "interval",
        "yes",
        "html",
        "svg",
        "serve",
        "markdown",
        "junit",
    ),
    "In general": ("seed", "json", "config", "quiet", "verbose", "color", "no_progress", "debug", "help"),
}
"""The sections in their order, with the options of each, named as on the command line."""

_OF_RUNS = ("output", "resume", "force")
"""Options that are of the run folder, in a command that has one."""


class SectionedCommand(click.Command):
    """A command whose help has its options in ``SECTIONS``; an option of none of them comes before."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])  # also for one without its group

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Options", *SECTIONS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                found[self.section_of(parameter)].append(record)
        for name, records in found.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def section_of(self, parameter: click.Parameter) -> str:
        """The section of an option; ``Options`` if nobody has given it one."""
        long = [option[2:].replace("-", "_") for option in parameter.opts if option.startswith("--")]
        name = long[0] if long else parameter.name or ""
        if name in _OF_RUNS and any(one.name == "checkpoint_every" for one in self.params):
            return "Run folder"
        return next((section for section, names in SECTIONS.items() if name in names), "Options")
