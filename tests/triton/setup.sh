#!/bin/bash
# Makes .venv-triton: a real Triton server, from a wheel, for the tests in this folder. `make triton` calls it.
# Usage: tests/triton/setup.sh [python3.11]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3.11}
venv=$PWD/.venv-triton

# The server's Python stub links libpython3.11.so.1.0 and does not bring it; without it a model's load hangs for 90 s.
"$python" - <<'CHECK'
import sys
import sysconfig
from pathlib import Path

if sys.version_info[:2] != (3, 11):
    sys.exit(f"The test server needs Python 3.11, this is {sys.version.split()[0]}: name one as the first argument.")
library = Path(sysconfig.get_config_var("LIBDIR")) / "libpython3.11.so.1.0"
if not library.exists():
    sys.exit(f"{library} is missing: install it (on Debian: apt-get install libpython3.11), or name a Python with one.")
CHECK

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/triton.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
    -r requirements/triton-server.txt

# Triton wants the stub beside the backend's library; links, because a stub that still runs cannot be overwritten.
root=$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("pytriton").submodule_search_locations[0])')
backend=$venv/backends/python
mkdir -p "$backend"
for file in backends/python/libtriton_python.so backends/python/triton_python_backend_utils.py \
    python_backend_stubs/3.11/triton_python_backend_stub; do
    [ -e "$root/tritonserver/$file" ] || { echo "$root/tritonserver/$file is missing" >&2; exit 1; }
    ln -sfn "$root/tritonserver/$file" "$backend/$(basename "$file")"
done
echo "$venv is ready: .venv/bin/pytest tests/triton"
