#!/bin/sh
# Build the sdist, the wheel from it, and use the wheel in .venv-wheel, which has the runtime dependencies and nothing else.
# Called by scripts/test, with the development environment on PATH.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
# shellcheck source=scripts/lib/venv.sh
. "$root/scripts/lib/venv.sh"
clean=$root/.venv-wheel
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

python -m build --no-isolation --outdir "$temporary/dist" "$root" >"$temporary/build.log" 2>&1 || {
    cat "$temporary/build.log" >&2
    fail "the wheel does not build"
}
wheel=$(echo "$temporary"/dist/nnas-*.whl)

# Every source and schema file is in the wheel: a package left out of setup.cfg is found here, not by a user.
python - "$wheel" "$root" <<'PYTHON'
import pathlib
import sys
import zipfile

wheel, root = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
expected = {
    # setup.cfg maps schemas/ into the package
    str(file.relative_to(root)).replace("schemas/", "nnas_core/schemas/", 1)
    if folder == "schemas"
    else str(file.relative_to(root))
    for folder in ("nnas_core", "nnas_cli", "schemas")
    for file in (root / folder).rglob("*")
    if file.suffix in {".py", ".json", ".typed"} or file.name == "py.typed" or file.parent.name == "assets"
}
missing = sorted(expected - set(wheel.namelist()))
if missing:
    sys.exit(f"check_wheel.sh: error: not in the wheel: {', '.join(missing)}")
PYTHON

make_clean_venv "$clean"
pip_in "$clean" install -qq --constraint "$root/requirements/base.txt" "$wheel"
pip_in "$clean" install -qq --no-deps --force-reinstall "$wheel"  # an older one of this version may have been there

# From here on as a user would: their own folder, their own model, no checkout on the path.
cd "$temporary"
unset PYTHONPATH
cat >model.py <<'PYTHON'
from nnas_core import InputChoice, LayerChoice
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="layer")
        self.skip = InputChoice(n_candidates=2, n_chosen=1, key="skip")

    def forward(self, x):
        return self.skip([x, self.layer(x)])
PYTHON
nnas() {
    # -P: the current folder is not importable, so that only what is installed counts.
    "$clean/bin/python" -W error -P "$clean/bin/nnas" "$@"
}
nnas --help >/dev/null
nnas ss-gen model.py -o space.json
nnas validate space.json
nnas view space.json >/dev/null
"$clean/bin/python" -W error -P - <<'PYTHON'
import importlib.util
import json
import pathlib

extra = [name for name in ("pytest", "sklearn", "mypy", "build") if importlib.util.find_spec(name)]
assert not extra, f"the environment is not clean: {extra}"
assert sorted(json.loads(pathlib.Path("space.json").read_text("utf-8"))) == ["layer", "skip"]
from nnas_core import schema

for kind in schema.kinds():
    schema.load(kind)
assert "search-space" in schema.kinds()
PYTHON
say "wheel: $(basename "$wheel") works"
