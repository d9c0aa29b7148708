#!/bin/sh
# setup.sh run|dev: make .venv hold exactly what requirements/run.txt or dev.txt lock, and Orderwire itself.
# Does nothing when that is so already; never takes the tools for development away again.
set -eu
cd "$(dirname "$0")/.."
wanted=$1
stamp=.venv/.synced # one line: set, checksum of the locks, folder (a moved .venv does not work)

fail() {
    echo "orderwire: $*" >&2
    exit 1
}

python() {
    without_venv=''
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        without_venv=$candidate
    done
    [ -z "$without_venv" ] || fail "$without_venv lacks venv; on Debian or Ubuntu: apt-get install python3-venv"
    fail "Python 3.11 or newer is needed; on Debian or Ubuntu: apt-get install python3 python3-venv"
}

locks=$(cat requirements/*.txt pyproject.toml | cksum | tr ' ' -)
had='' had_locks='' had_folder=''
[ ! -f "$stamp" ] || read -r had had_locks had_folder <"$stamp"
[ "$had" != dev ] || wanted=dev
if [ "$had $had_locks $had_folder" = "$wanted $locks $PWD" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if [ "${had_folder:-$PWD}" != "$PWD" ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    interpreter=$(python)
    echo "orderwire: making .venv with $($interpreter --version)"
    rm -rf .venv
    "$interpreter" -m venv .venv
fi
rm -f "$stamp"
export UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV="$PWD/.venv"
echo "orderwire: installing what requirements/$wanted.txt locks"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
.venv/bin/uv pip sync --quiet --require-hashes "requirements/$wanted.txt"
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
echo "$wanted $locks $PWD" >"$stamp"
