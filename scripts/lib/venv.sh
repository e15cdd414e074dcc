# shellcheck shell=sh
# Sourced by scripts/demo and scripts/test, with $root set: virtual environments with exactly the pinned packages.

: "${root:?set it before sourcing this file}"

say() {
    printf '==> %s\n' "$*"
}

fail() {
    printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# make_venv DIR: an environment with its own pip where the machine can do that, else one that the machine's pip serves.
make_venv() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "the pinned packages need Python 3.11 or newer, found $(python3 --version)"
    # Debian splits ensurepip off from python3; --without-pip does not need it.
    python3 -m venv "$1" 2>/dev/null || python3 -m venv --clear --without-pip "$1" ||
        fail "cannot make a virtual environment in $1"
}

# pip_in DIR ARGUMENT...: pip for that environment. Called with -qq: warnings about indexes are the machine's affair.
pip_in() {
    pip_venv=$1
    shift
    if "$pip_venv/bin/python" -c 'import pip' 2>/dev/null; then
        "$pip_venv/bin/python" -m pip --disable-pip-version-check "$@"
    else
        python3 -m pip --disable-pip-version-check --python "$pip_venv/bin/python" "$@"
    fi
}

# install_torch DIR: first, so that nothing else decides which build of it is taken.
install_torch() {
    pip_in "$1" install -qq --constraint "$root/requirements/base.txt" --requirement "$root/requirements/torch.txt"
}

# stamp: what an installed environment depends on; a changed pin, dependency or checkout changes it.
stamp() {
    {
        printf '%s\n' "$root"
        cat "$root"/requirements/*.txt "$root/setup.cfg" "$root/pyproject.toml"
    } | cksum
}

# is_current DIR: whether nothing has changed since mark_current DIR.
is_current() {
    [ -x "$1/bin/python" ] && [ "$(cat "$1/.nnas-stamp" 2>/dev/null)" = "$(stamp)" ]
}

mark_current() {
    stamp >"$1/.nnas-stamp"
}

# use_development_venv: make or reuse $NNAS_VENV (default: .venv), with nnas installed in place, and put it first on PATH.
use_development_venv() {
    venv=${NNAS_VENV:-$root/.venv}
    case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
    if is_current "$venv"; then
        say "environment: $venv (up to date)"
    else
        say "environment: $venv (installing the pinned packages, a few minutes the first time)"
        [ -x "$venv/bin/python" ] || make_venv "$venv"
        install_torch "$venv"
        pip_in "$venv" install -qq --requirement "$root/requirements/dev.txt"
        pip_in "$venv" install -qq --no-deps --no-build-isolation --editable "$root"
        mark_current "$venv"
    fi
    PATH=$venv/bin:$PATH
    export PATH
}

# make_clean_venv DIR: make it, unless it is there, with torch and nothing else.
make_clean_venv() {
    is_current "$1" && return
    rm -rf "$1"
    make_venv "$1"
    install_torch "$1"
    mark_current "$1"
}
