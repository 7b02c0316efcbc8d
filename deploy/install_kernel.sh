#!/bin/bash
# Install the packages of the lock and this checkout into an environment, and register it as the kernel "Lakehouse".
#
#   [WHEELS=FOLDER] deploy/install_kernel.sh ENVIRONMENT
#
# WHEELS: a folder with wheels (make_wheelhouse.sh), for a VPC without internet.
set -eu
environment="${1:?usage: install_kernel.sh ENVIRONMENT}"
checkout="$(cd "$(dirname "$0")/.." && pwd)"
index=()
if [ -n "${WHEELS:-}" ]; then index=(--no-index --find-links "$WHEELS"); fi
python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet "${index[@]}" --require-hashes -r "$checkout/requirements.txt"
"$environment/bin/python" -m pip install --quiet --no-index --no-deps --no-build-isolation -e "$checkout"
"$environment/bin/python" -m ipykernel install --user --name lakehouse --display-name Lakehouse
