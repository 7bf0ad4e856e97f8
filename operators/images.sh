#!/bin/bash
# Builds images: operators/images.sh [load] [filter] [stitch] [segmentation] [triton]; none named: the four operators.
# CONTAINER_ENGINE: podman or docker (not set: the first of them that answers).
# BUILD_OPTIONS: more options for its `build`, for example "--build-arg PYTHON_IMAGE=registry.example/python:3.11".
set -euo pipefail
cd "$(dirname "$0")/.."

# what tests/containers/setup.sh prepared, if it was called here
prepared=.cache/containers/env
if [ -e "$prepared" ] && [ "${CONTAINER_ENGINE:-podman}" = podman ]; then
    asked=${BUILD_OPTIONS:-}
    set -a
    # shellcheck disable=SC1090 # made by setup.sh
    . "$prepared"
    set +a
    BUILD_OPTIONS="$BUILD_OPTIONS $asked"
fi

engine=${CONTAINER_ENGINE:-}
for candidate in podman docker; do
    if [ -z "$engine" ] && command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
        engine=$candidate
    fi
done
if [ -z "$engine" ]; then
    echo "Neither podman nor docker answers; on a bare Debian 12, tests/containers/setup.sh installs Podman." >&2
    exit 1
fi

export DOCKER_BUILDKIT=1 # older Dockers build without it, and know no cache mounts then
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
[ $# -gt 0 ] || set -- load filter stitch segmentation
for name in "$@"; do
    folder=operators/$name
    [ "$name" != triton ] || folder=tests/containers/triton # for the tests only
    echo "building nuclei/$name:$version with $engine"
    # shellcheck disable=SC2086 # BUILD_OPTIONS is a list
    "$engine" build ${BUILD_OPTIONS:-} --quiet --build-arg "VERSION=$version" \
        -t "nuclei/$name:$version" -t "nuclei/$name:latest" -f "$folder/Dockerfile" . >/dev/null
done
