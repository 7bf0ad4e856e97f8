#!/bin/bash
# Makes .venv-triton: a real Triton server, from a wheel, for the tests in this folder. `make triton` calls it.
# PYTHON names the interpreter. If it is not set, or names neither 3.11 nor 3.12, one of these is looked for.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$PWD/.venv-triton
wanted=$(cat requirements/triton.txt requirements/triton-server.txt "tests/triton/${0##*/}" | sha256sum)
[ "$(cat "$venv/.made-of" 2>/dev/null || true)" = "$wanted" ] && exit 0

# The server has stubs only for these versions (NumPy 1 ends there). A stub needs the interpreter's libpython, which it
# does not contain; without it, loading a model hangs for 90 s.
suits() {
    "$1" - 2>/dev/null <<'CHECK'
import sys
import sysconfig
from pathlib import Path

version = "%d.%d" % sys.version_info[:2]
library = Path(sysconfig.get_config_var("LIBDIR")) / f"libpython{version}.so.1.0"
sys.exit(version not in ("3.11", "3.12") or not library.exists())
CHECK
}
python=
for candidate in "${PYTHON:-python3}" python3.11 python3.12; do
    if command -v "$candidate" >/dev/null && suits "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "The test server needs Python 3.11 or 3.12 with its shared library (on Debian: apt-get install libpython3.11)." >&2
    exit 1
fi

rm -rf "$venv"
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check install --require-hashes "$@"; }
pip -r requirements/triton.txt
pip --no-deps -r requirements/triton-server.txt

# Triton expects the stub in the folder of the backend's library. Links, since a running stub cannot be overwritten.
root=$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("pytriton").submodule_search_locations[0])')
version=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
backend=$venv/backends/python
mkdir -p "$backend"
for file in backends/python/libtriton_python.so backends/python/triton_python_backend_utils.py \
    "python_backend_stubs/$version/triton_python_backend_stub"; do
    [ -e "$root/tritonserver/$file" ] || { echo "$root/tritonserver/$file is missing" >&2; exit 1; }
    ln -sfn "$root/tritonserver/$file" "$backend/${file##*/}"
done
echo "$wanted" > "$venv/.made-of"
