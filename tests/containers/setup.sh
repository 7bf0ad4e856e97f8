#!/bin/bash
# Makes a bare Debian 12 machine able to build the images and run them, without an image hub and without a daemon:
# installs Podman, and makes the base image from Debian's own packages. Needs root (or sudo).
# Everything but the packages lies in .cache/containers, apart from whatever Podman has on this machine; the file
# .cache/containers/env says so to `make images` and to the tests. A second call takes a second.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=$PWD/.cache/containers
base=docker.io/library/python:3.11-slim-bookworm
bundle=/etc/ssl/certs/ca-certificates.crt

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
quietly() { "$@" > "$place/log" 2>&1 || { cat "$place/log" >&2; return 1; }; }

mkdir -p "$place/tmp"

# runc: Debian's crun refuses machines whose control groups are of both versions. iptables and aardvark-dns: networks.
missing=()
for package in podman runc mmdebstrap netavark aardvark-dns iptables catatonit ca-certificates; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    quietly as_root apt-get update -q
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# limits that a process without CAP_SYS_RESOURCE may set
files=$(ulimit -Hn)
[ "$files" = unlimited ] && files=1048576
cat > "$place/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "$place/networks"
CONF
cat > "$place/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$place/graph"
runroot = "$place/run"
CONF
export CONTAINERS_CONF=$place/containers.conf CONTAINERS_STORAGE_CONF=$place/storage.conf

if ! podman image exists "$base"; then
    echo "making the base image (a minute or two)"
    # laid out as the official image is: Python in /usr/local
    # shellcheck disable=SC2016 # mmdebstrap gives $1 to the hooks
    quietly as_root mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='chroot "$1" python3 -m venv /usr/local' \
        --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
        bookworm "$place/base.tar"
    quietly podman import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' "$place/base.tar" "$base"
    rm -f "$place/base.tar"
fi

# The machine's certificates are there while an image is built, so that pip trusts what the machine trusts; they are
# mounted, and enter no layer.
cat > "$place/env" <<ENV
CONTAINER_ENGINE=podman
CONTAINERS_CONF=$CONTAINERS_CONF
CONTAINERS_STORAGE_CONF=$CONTAINERS_STORAGE_CONF
TMPDIR=$place/tmp
BUILD_OPTIONS="--pull-never --network host -v $bundle:$bundle:ro"
ENV
