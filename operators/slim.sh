#!/bin/bash
# The last step of every image's build: slim.sh VENV. Drops what no run imports, compiles the rest.
set -euo pipefail
site=$(echo "$1"/lib/python3.*/site-packages)

# Packages' own tests. Nothing else: headers and type stubs are small.
find "$site" -type d -name tests -prune -exec rm -r {} +
rm -rf "$site/onnx/backend/test"

# The models lie in /app/models, of the images that infer.
rm -rf "$site/nuclei_segmentation/models"

# The root of a container is read-only, so Python could not keep what it compiles. These files hold no date, and are
# trusted without a look at the source.
find "$site" -type d -name __pycache__ -prune -exec rm -r {} +
"$1/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site"
