#!/bin/bash
# Start-up script of a SageMaker Notebook Job. The driver sources it before it runs the notebook, so it must not exit.
#
# It installs the packages of the lock into an environment of the job, and registers it as the kernel "lakehouse":
# choose that kernel in the job. CHECKOUT and WHEELS are as in sagemaker_lifecycle.sh.
CHECKOUT="${CHECKOUT:-$PWD}"
WHEELS="${WHEELS:-}" bash "$CHECKOUT/deploy/install_kernel.sh" "${LAKEHOUSE_ENVIRONMENT:-$HOME/envs/lakehouse-job}"
