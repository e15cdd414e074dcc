"""Draw docs/demo.svg: a terminal with the end of what scripts/demo says.

./scripts/demo >demo.log && python docs/picture.py demo.log    record it in docs/demo.txt, and draw that
python docs/picture.py                                         draw docs/demo.txt again
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).resolve().parent
LAST_STEP = "==> 4."


def main() -> int:
    """Run the command line."""
    if len(sys.argv) > 1:
        said = Path(sys.argv[1]).read_text(encoding="utf-8")
        last = without_trailing_blanks(said[said.index(LAST_STEP) :])
        (FOLDER / "demo.txt").write_text(last, encoding="utf-8")
    (FOLDER / "demo.svg").write_text(draw((FOLDER / "demo.txt").read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def draw(said: str) -> str:
    """A picture of a terminal of 100 columns that shows a text."""
    console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True, legacy_windows=False)
    console.print(Text("$ ./scripts/demo", style="bold"))
    console.print(Text("...", style="dim"))
    for line in said.splitlines():
        found = line.startswith("found by the search")
        console.print(Text(line, style="bold" if line.startswith(("==>", "$ ")) else "bold green" if found else ""))
    drawn = console.export_svg(title="nnas", unique_id="demo")
    return without_trailing_blanks(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL))  # it loads fonts


def without_trailing_blanks(text: str) -> str:
    """A text whose lines end with what can be seen."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
