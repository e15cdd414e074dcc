"""A run folder that a new run begins in: what an older one left goes, and nothing else."""

from __future__ import annotations

from pathlib import Path

from nnas_core.runs.folder import RunFolder

FILES = ("config.json", "checkpoint.pt", "events.jsonl", ".lock")


def older(folder: Path) -> None:
    """Files of a run."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("{}")


def test_trainings_of_an_older_run_with_further_seeds_go_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    older(folder)
    for name in ("seed-1", "seed-2", "seed-x", "seeds"):
        older(folder / name)
    (folder / "seed-2" / "notes.txt").write_text("mine")
    (folder / "seed-3").mkdir()
    (folder / "seed-3" / "mine.txt").write_text("mine")
    older(tmp_path / "elsewhere")
    (folder / "seed-4").symlink_to(tmp_path / "elsewhere")
    with RunFolder.create(folder, force=True) as run:
        assert (folder / "seed-1" / "checkpoint.pt").exists()  # until the new one has begun
        with run.beginning({"retrain": {}}) as first:
            first.write_bytes(b"new")
        found = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    mine = ["seed-2/notes.txt", "seed-3/mine.txt"]
    others = [f"{name}/{file}" for name in ("seed-x", "seeds") for file in sorted(FILES)]
    assert found == sorted([".lock", "checkpoint.pt", "config.json", *mine, *others])
    assert (tmp_path / "elsewhere" / "checkpoint.pt").exists()
    assert not (folder / "seed-1").exists()
