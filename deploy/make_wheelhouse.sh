#!/bin/bash
# Download every package of the lock as a wheel, for a VPC without internet access.
#
#   deploy/make_wheelhouse.sh wheels
#   aws s3 sync wheels s3://your-bucket/wheels
#
# Run it with the Python version, on the operating system and on the processor of Studio.
set -eu
folder="${1:?usage: make_wheelhouse.sh FOLDER}"
checkout="$(cd "$(dirname "$0")/.." && pwd)"
"${PYTHON:-python3}" -m pip download --require-hashes --only-binary :all: -r "$checkout/requirements.txt" -d "$folder"
