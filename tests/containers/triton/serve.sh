#!/bin/bash
# Starts the server on port 8000, for HTTP only.
set -euo pipefail
cd "$(dirname "$0")"
site=$(echo "$PWD"/.venv-triton/lib/python3.*/site-packages)
library=$(python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
export PATH=$PWD/.venv-triton/bin:$PATH LD_LIBRARY_PATH=$library:$site/nvidia_pytriton.libs
exec "$site/pytriton/tritonserver/bin/tritonserver" --model-repository=models --http-port=8000 \
    --backend-directory="$PWD/.venv-triton/backends" --allow-grpc=false --allow-metrics=false --exit-timeout-secs=2
