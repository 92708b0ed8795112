# Shared by the scripts, sourced and never run: the virtual environment beside the repository's root.
# shellcheck shell=bash

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python
me=$(basename "$0")

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

# The first interpreter on the path that is new enough.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "needs Python 3.11 or newer on the PATH"
}

# use_venv EXTRAS: makes the environment when missing, and installs trims into it with those extras, unless that very
# thing was done before. The stamp holds what was asked for, so a changed pyproject.toml installs again.
use_venv() {
    local extras=$1 stamp wanted
    if [ ! -x "$python" ]; then
        "$(find_python)" -m venv "$venv" || die "could not make $venv (on Debian: apt install python3-venv)"
    fi
    stamp=$venv/.trims-$extras
    wanted=$(cksum <"$root/pyproject.toml")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "$me: installing trims[$extras] into .venv"
        "$python" -m pip install -qq --disable-pip-version-check -e "$root[$extras]" ||
            die "pip could not install trims: is a package index reachable?"
        printf '%s\n' "$wanted" >"$stamp"
    fi
    # pip compiles what it installs, but not an editable tree; start-up is a feature here, so it is never left to chance.
    "$python" -m compileall -q "$root/store" "$root/trims_cli" "$root/bench"
    export PATH=$venv/bin:$PATH
}
