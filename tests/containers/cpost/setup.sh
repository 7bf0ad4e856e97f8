#!/bin/bash
# Makes what test_cpost.py needs on a bare Debian 12 machine: NVIDIA's sizing tool, in .venv-cpost, and Docker's daemon and
# client, in .cache/docker. The tool knows no other engine. Docker is unpacked from Debian's packages, not installed: no
# service is started, no group made, and a Docker that the machine has stays as it is. Needs root (or sudo) for what Docker
# links. A second call takes no time.
set -euo pipefail
cd "$(dirname "$0")/../../.."
place=$PWD/.cache/docker
venv=$PWD/.venv-cpost
lists="requirements/cpost.txt requirements/cpost-tool.txt"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
quietly() { "$@" > "$place/log" 2>&1 || { cat "$place/log" >&2; return 1; }; }

mkdir -p "$place"

# shellcheck disable=SC2086 # a list
wanted=$(cat $lists "tests/containers/cpost/${0##*/}" | sha256sum)
if [ "$(cat "$venv/.made-of" 2>/dev/null || true)" != "$wanted" ]; then
    echo "installing NVIDIA's sizing tool"
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check install --require-hashes "$@"; }
    pip -r requirements/cpost.txt
    pip --no-deps -r requirements/cpost-tool.txt
    echo "$wanted" > "$venv/.made-of"
fi

# libdevmapper: dockerd links it. catatonit: the first process of the daemon's namespace.
missing=()
for package in runc catatonit libdevmapper1.02.1; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ] || [ ! -e "$place/root" ]; then
    echo "getting Docker"
    quietly as_root apt-get update -q
    [ ${#missing[@]} = 0 ] ||
        quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    rm -rf "$place/packages"
    mkdir "$place/packages"
    (cd "$place/packages" && quietly apt-get download -q docker.io containerd)
    for package in "$place"/packages/*.deb; do dpkg -x "$package" "$place/packages/root"; done
    rm -rf "$place/root"
    mv "$place/packages/root" "$place/root"
    rm -r "$place/packages"
fi
