#!/bin/bash
# Start-up script of a SageMaker Notebook Job. The driver sources it before it runs the notebook, so it must not exit.
#
# It installs the packages of the lock into an environment of the job, and registers it as the kernel "lakehouse":
# choose that kernel in the job. CHECKOUT and WHEELS are as in sagemaker_lifecycle.sh.
CHECKOUT="${CHECKOUT:-$PWD}"
WHEELS="${WHEELS:-}"
lakehouse_environment="${LAKEHOUSE_ENVIRONMENT:-$HOME/envs/lakehouse-job}"
lakehouse_index="${WHEELS:+--no-index --find-links $WHEELS}"
python3 -m venv "$lakehouse_environment" &&
  "$lakehouse_environment/bin/python" -m pip install --quiet $lakehouse_index --require-hashes -r "$CHECKOUT/requirements.txt" &&
  "$lakehouse_environment/bin/python" -m pip install --quiet --no-index --no-deps --no-build-isolation -e "$CHECKOUT" &&
  "$lakehouse_environment/bin/python" -m ipykernel install --user --name lakehouse --display-name Lakehouse
