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
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
digest() { sha256sum "models/$1/1/model.onnx" | cut -c1-12; }
model="segmentation_unet_nuclei (int8, SHA-256 $(digest segmentation_unet_nuclei_int8); fp32, SHA-256 $(digest segmentation_unet_nuclei))"

build() { # an image by the name of its operator
    local name=$1 folder=operators/$1 lock=requirements/$1.txt labels=()
    [ "$name" != triton ] || folder=tests/containers/triton # for the tests only
    [ "$name" != segmentation ] || lock=requirements/run.txt
    case $name in filter | segmentation) labels+=(--label "nuclei.model=$model") ;; esac
    # the libraries that read, compute and write, as `--version` lists them
    labels+=(--label "nuclei.libraries=$(grep -oE '^(imagecodecs|numpy|onnxruntime|opencv-python-headless|openslide-bin|openslide-python|scipy|simplejpeg|tifffile|tritonclient)(\[[a-z]+\])?==[^ ]+' "$lock" | paste -sd' ')")
    # shellcheck disable=SC2086 # BUILD_OPTIONS is a list
    "$engine" build ${BUILD_OPTIONS:-} --quiet --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "${labels[@]}" \
        -t "nuclei/$name:$version" -t "nuclei/$name:latest" -f "$folder/Dockerfile" . >/dev/null
}

[ $# -gt 0 ] || set -- load filter stitch segmentation
echo "building $(printf 'nuclei/%s ' "$@")$version with $engine"
# all at once: a build waits for downloads and for the disk most of its time
declare -A builds
for name in "$@"; do
    build "$name" &
    builds[$name]=$!
done
failed=()
for name in "$@"; do
    wait "${builds[$name]}" || failed+=("nuclei/$name")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "building failed: ${failed[*]}" >&2
    exit 1
fi
