#!/bin/bash
# Lifecycle script of a SageMaker Studio JupyterLab space: the course's environment, below HOME, as the kernel "Lakehouse".
#
# Studio stops a lifecycle script after five minutes, and then the space does not start. Therefore this script starts the
# installation in the background and returns at once. It may run at every start: when the environment is complete, it
# does nothing. The log is in ~/.lakehouse-setup.log.
#
# CHECKOUT: the clone of the repository. WHEELS: a folder with wheels (make_wheelhouse.sh), for a VPC without internet.
set -eu
CHECKOUT="${CHECKOUT:-$HOME/lakehouse}"
ENVIRONMENT="$HOME/envs/lakehouse"
DONE="$ENVIRONMENT/.complete"
LOCK="$HOME/.lakehouse-setup.lock"
LOG="$HOME/.lakehouse-setup.log"

wanted="$(cksum <"$CHECKOUT/requirements.txt")"
if [ -f "$DONE" ] && [ "$(cat "$DONE")" = "$wanted" ]; then
  echo "The environment is complete: $ENVIRONMENT"
  exit 0
fi

set_up() {
  exec 9>"$LOCK"
  flock -n 9 || { echo "Another set-up is running."; exit 0; }
  bash "$CHECKOUT/deploy/install_kernel.sh" "$ENVIRONMENT"
  echo "$wanted" >"$DONE"
  echo "The environment is complete: $ENVIRONMENT"
}

export -f set_up
export CHECKOUT ENVIRONMENT DONE LOCK WHEELS="${WHEELS:-}" wanted
nohup setsid bash -euc set_up >"$LOG" 2>&1 </dev/null &
echo "The environment is being set up; see $LOG"
