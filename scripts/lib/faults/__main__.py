"""The command line of scripts/mutate."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.faults.campaign import Tried, sample, tried, unsure
from scripts.lib.faults.executed import Executed, measure
from scripts.lib.faults.operators import Fault
from scripts.lib.faults.trying import Tree

ROOT = Path(__file__).resolve().parents[3]

ROOMS = ("mutators", "tuners", "assessors", "study", "execution", "runs")

EPILOG = """\
The first run measures with coverage which tests execute which line, about 25 minutes on one core; --measure does it
again, after tests or sources have changed. Then a fault takes a few seconds. Everything is written to the folder, which
has a copy of the tree: faults never touch the checkout. A run that was stopped goes on where it was; another seed adds
faults. Survivors are printed as diffs: write a test that notices, and try them again with --retry --also TESTFILE.
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="scripts/mutate",
        description="Put single-line faults into nnas_core, one at a time, and see which ones no test notices.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "targets",
        nargs="*",
        metavar="PATH",
        default=[f"nnas_core/{room}" for room in ROOMS],
        help="folders or files below nnas_core; faults are spread evenly over them (default: %(default)s)",
    )
    made.add_argument("--count", type=int, default=150, help="faults in all (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    made.add_argument("--folder", type=Path, default=ROOT / "mutation-out", help="default: mutation-out")
    made.add_argument("--list", action="store_true", help="print the faults of the sample and try none")
    made.add_argument("--measure", action="store_true", help="measure again which tests execute which line")
    made.add_argument(
        "--by-name",
        action="store_true",
        help="measure nothing: where nothing was, try the test files that name the module",
    )
    made.add_argument("--retry", action="store_true", help="try those that survived again")
    made.add_argument("--also", nargs="+", default=[], metavar="TEST", help="tests that each fault is tried on first")
    return made


def main() -> None:
    """Draw, measure, try, and say what survived."""
    given = parser().parse_args()
    targets = [str(Path(target)).rstrip("/") for target in given.targets]
    drawn = sample(ROOT, targets, given.count, given.seed)
    if given.list:
        for file, fault in drawn:
            print(fault.diff(file, (ROOT / file).read_text("utf-8")), end="\n\n")
        return
    folder: Path = given.folder.resolve()
    tree = Tree(ROOT, folder / "tree")
    executed = Executed()
    for room in sorted({target.split("/")[1] for target in targets} | {"cli"}):
        measured = folder / "executed" / room
        known = (measured / "seconds.json").exists()
        if given.by_name and not known:
            continue
        if given.measure or not known:
            print(f"measuring which lines tests/{room} executes", flush=True)
            measure(measured, tree.path, [f"tests/{room}"], "not kill")
        executed.load(measured, ROOT)
    _report(_all_tried(drawn, given, tree, executed), tree)


def _all_tried(
    drawn: list[tuple[str, Fault]], given: argparse.Namespace, tree: Tree, executed: Executed
) -> list[Tried]:
    """Try what was not tried yet, and return the results of the sample."""
    file = tree.path.parent / "results.jsonl"
    known = {}
    if file.exists():
        earlier = map(Tried.from_line, file.read_text("utf-8").splitlines())
        known = {(one.file, one.fault): one for one in earlier}  # the last counts
    results = []
    for number, (name, fault) in enumerate(drawn, 1):
        one = known.get((name, fault))
        if one is None or (given.retry and one.survives):
            one = tried(tree, executed, name, fault, given.also)
            with file.open("a", encoding="utf-8") as stream:
                stream.write(one.to_line() + "\n")
            print(
                f"{number:4}/{len(drawn)}  {one.verdict:<12}  {one.seconds:6.1f} s  {name}:{fault.line}"
                f"  {fault.operator}  {one.test.rpartition('::')[2][:60]}",
                flush=True,
            )
        results.append(one)
    return results


def _report(results: list[Tried], tree: Tree) -> None:
    wrong = unsure(tree, results)
    survivors = [one for one in results if one.survives]
    for one in survivors:
        print(f"\n{one.verdict}:")
        print(one.fault.diff(one.file, (ROOT / one.file).read_text("utf-8")))
    for one in results:
        if one.test in wrong:
            print(f"\nnot decided, {one.test} fails without the fault:")
            print(one.fault.diff(one.file, (ROOT / one.file).read_text("utf-8")))
    hung = sum(one.verdict == "hung" for one in results)
    found = sum(one.verdict == "found" for one in results)
    print(f"\n{len(results)} faults: {found} found, {hung} hung (found too), {len(survivors)} survived")


if __name__ == "__main__":
    main()
