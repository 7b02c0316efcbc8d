# `make` lists what there is to do. Needs a POSIX shell and GNU make 3.81 or newer; README.md says how to do without.

# PYTHON=python3.12   the Python that .venv is made with; empty: the first of CANDIDATES that will do, else uv's choice
# UV=                 set up with venv and pip, although uv is there
# ARGS="..."          goes on to what is run
# OPTS="..."          goes on to JupyterLab
# ENGINE=spark        what does the work; adds what the Spark engine needs to .venv
ENGINE ?= local
PYTHON ?=
UV ?= uv
ARGS ?=
OPTS ?=

CANDIDATES = python3 python3.13 python3.12 python3.11 python
IN_RANGE = (3, 11) <= sys.version_info < (3, 14)
WANTED = Python 3.11, 3.12 or 3.13

VENV = .venv/bin/python
READY = .venv/.ready
SPARK = .venv/.spark
SET_UP = $(READY) $(if $(filter spark,$(ENGINE)),$(SPARK))
COMMAND_OF_PID = { tr '\0' ' ' <"/proc/$$pid/cmdline" || ps -ww -p "$$pid" -o args=; } 2>/dev/null

.PHONY: help run lab progress notebooks test bench spark-cluster spark-cluster-stop lock clean look

help: ## list the targets (this)
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

run: $(SET_UP) ## build the lake: landing -> bronze -> silver -> gold; ENGINE=spark, ARGS="--verbose"
	@$(VENV) ingestion_processor.py $(if $(filter-out local,$(ENGINE)),--engine $(ENGINE)) $(ARGS)

lab: $(SET_UP) ## open JupyterLab on notebooks/; OPTS="--no-browser"
	@$(VENV) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $(OPTS)

progress: $(READY) ## show which exercises of the course are solved
	@$(VENV) -m lakehouse_utils.course.exercises $(ARGS)

notebooks: $(READY) $(SPARK) ## run every notebook and save it with its new outputs; ARGS="02 05" for some of them
	@$(VENV) tests/notebooks/books.py $(ARGS)

test: $(READY) $(SPARK) ## run the tests; ARGS="tests/test_lake.py" for some of them
	@$(VENV) -m pytest -n logical --maxprocesses 4 $(ARGS)

bench: $(READY) $(SPARK) ## run every benchmark in benchmarks/; ARGS goes to each
	@for script in benchmarks/*.py; do \
	  if [ ! -e "$$script" ]; then echo "There is nothing in benchmarks/ yet."; exit 0; fi; \
	  echo "== $$script"; \
	  $(VENV) "$$script" $(ARGS) || exit; \
	done

spark-cluster: $(READY) ## start a small Apache Spark cluster on this machine (needs Java 17 and Maven; 0.5 GB once)
	@$(VENV) -m lakehouse_utils.spark start

spark-cluster-stop: $(READY) ## stop it; what it downloaded stays
	@$(VENV) -m lakehouse_utils.spark stop

lock: ## compile requirements.txt from pyproject.toml anew (needs uv); ARGS="--upgrade" for newer versions
	@$(UV) pip compile pyproject.toml --extra test --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet -o requirements.txt $(ARGS)

# The servers are also found by their numbers, for .venv may be too broken to be asked.
clean: ## stop the S3 server and the Spark cluster; remove .venv, .lakehouse (the lake on that server) and caches
	@if [ -x $(VENV) ]; then \
	  $(VENV) -m lakehouse_utils.spark stop >/dev/null 2>&1 || true; \
	  $(VENV) -m lakehouse_utils.embedded_s3 stop >/dev/null 2>&1 || true; \
	fi
	@for signal in TERM TERM TERM TERM TERM KILL; do \
	  left=; \
	  for pid in $$(cat .lakehouse/spark/pids 2>/dev/null); do \
	    case "$$($(COMMAND_OF_PID))" in *"$(CURDIR)/.lakehouse/spark/"*org.apache.spark.*) ;; *) continue ;; esac; \
	    left=1; kill -$$signal "$$pid" 2>/dev/null || true; \
	  done; \
	  [ -n "$$left" ] || break; \
	  sleep 1; \
	done
	@if pid=$$(cat .lakehouse/s3/pid 2>/dev/null); then \
	  port=$$(sed -n 's/.*"s3.port": *\([0-9][0-9]*\).*/\1/p' .lakehouse/s3/ports.json); \
	  for signal in TERM TERM TERM TERM TERM KILL; do \
	    case "$$($(COMMAND_OF_PID)) " in *weed*" -s3.port=$$port "*) ;; *) break ;; esac; \
	    kill -$$signal "$$pid" 2>/dev/null || true; \
	    sleep 1; \
	  done; \
	fi
	@rm -rf .venv .lakehouse .pytest_cache .ruff_cache
	@find . -path ./.git -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# .venv needs a look when its files are older than the lock, when the checkout has moved, when PYTHON asks for another.
MADE_FOR := $(shell cat $(READY) 2>/dev/null)
VERSION = import sys; print(sys.version)
ifneq ($(MADE_FOR),$(CURDIR))
  $(READY): look
endif
ifneq ($(PYTHON),)
  ASKED_FOR := $(shell "$(PYTHON)" -c '$(VERSION)' 2>/dev/null)
  THERE_IS := $(shell $(VENV) -c '$(VERSION)' 2>/dev/null)
  ifneq ($(ASKED_FOR),$(THERE_IS))
    $(READY): look
  endif
endif

# `.unfinished` holds the number of the shell that is at work: a second `make` waits for it, and begins anew when it
# was interrupted. uv doesn't read pip's configuration, so where pip is told of another index, pip it is.
$(READY): requirements.txt pyproject.toml
	@set -e; \
	fits() { "$$1" -c 'import sys; sys.exit(not $(IN_RANGE))' 2>/dev/null; }; \
	version() { "$$1" -c '$(VERSION)' 2>/dev/null; }; \
	uv=; if [ -n "$(UV)" ] && "$(UV)" --version >/dev/null 2>&1; then uv=1; fi; \
	python=; found=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
	  if fits "$$candidate"; then \
	    python=$$("$$candidate" -c 'import sys; print(sys._base_executable)'); break; \
	  elif [ -z "$$found" ] && version "$$candidate" >/dev/null; then \
	    found="; $$candidate is $$("$$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')"; \
	  fi; \
	done; \
	if [ -z "$$python" ] && [ -n "$(PYTHON)" ]; then \
	  echo "$(WANTED) is needed$${found:-; there is no $(PYTHON)}: choose another with PYTHON=..." >&2; exit 1; \
	elif [ -z "$$python" ] && [ -z "$$uv" ]; then \
	  echo "$(WANTED) is needed$$found: install one, or uv, or say where one is: PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	elif [ -n "$$python" ] && "$$python" -m pip config list 2>/dev/null | grep -Eq '(index-url|no-index)='; then \
	  uv=; \
	fi; \
	mkdir -p .venv; waited=; anew=; tries=; \
	until (set -C; echo $$$$ >.venv/.unfinished) 2>/dev/null; do \
	  pid=$$(cat .venv/.unfinished 2>/dev/null) || pid=; \
	  case "$$pid $$($(COMMAND_OF_PID))" in \
	    "$$$$ "*) ;; \
	    *.venv/.unfinished*) waited=1; sleep 1; continue ;; \
	  esac; \
	  [ -n "$$pid" ] || { sleep 1; [ ! -s .venv/.unfinished ] || continue; }; \
	  tries=$${tries}x; if [ $$tries = xxx ]; then echo "The folder .venv can't be written." >&2; exit 1; fi; \
	  if [ -e .venv/.unfinished ]; then anew=1; rm -f .venv/.unfinished; fi; \
	done; \
	if [ -n "$$waited" ] && [ -z "$$anew" ]; then rm .venv/.unfinished; exit 0; fi; \
	made_for=$$(cat $(READY) 2>/dev/null) || made_for=$$(pwd -P); \
	if [ "$$made_for" != "$$(pwd -P)" ] || ! fits $(VENV); then anew=1; fi; \
	if [ -n "$(PYTHON)" ] && [ "$$(version "$$python")" != "$$(version $(VENV))" ]; then anew=1; fi; \
	if [ -n "$$anew" ]; then find .venv -mindepth 1 -maxdepth 1 ! -name .unfinished -exec rm -rf {} +; fi; \
	if [ -n "$$uv" ]; then \
	  echo "Setting up .venv with uv ..."; \
	  if [ ! -x $(VENV) ]; then \
	    "$(UV)" venv --quiet --allow-existing --python "$${python:->=3.11,<3.14}" .venv || { \
	      echo "$(WANTED) is needed$$found, and uv has none: install one, or say where one is: PYTHON=..." >&2; exit 1; \
	    }; \
	  fi; \
	  "$(UV)" pip install --quiet --compile-bytecode --python $(VENV) --require-hashes -r requirements.txt; \
	  "$(UV)" pip install --quiet --python $(VENV) --no-deps --no-build-isolation -e .; \
	else \
	  echo "Setting up .venv with pip: a few minutes ..."; \
	  $(VENV) -m pip --version >/dev/null 2>&1 || "$$python" -m venv .venv; \
	  pip() { $(VENV) -m pip install --quiet --no-user --disable-pip-version-check "$$@"; }; \
	  pip --require-hashes -r requirements.txt; \
	  pip --no-deps --no-build-isolation -e .; \
	fi; \
	pwd -P >$(READY); \
	rm .venv/.unfinished

# What the lock has stays as it is locked.
$(SPARK): $(READY)
	@echo "Adding the Spark engine to .venv: Sail, Spark's client, sqlglot ..."
	@$(VENV) -c "$$SPARK_REQUIREMENTS"
	@if "$(UV)" --version >/dev/null 2>&1 && ! $(VENV) -m pip --version >/dev/null 2>&1; then \
	  "$(UV)" pip install --quiet --compile-bytecode --python $(VENV) -r .venv/.wanted -c .venv/.locked; \
	else \
	  $(VENV) -m pip install --quiet --disable-pip-version-check -r .venv/.wanted -c .venv/.locked; \
	fi
	@rm .venv/.wanted .venv/.locked
	@touch $(SPARK)

define SPARK_REQUIREMENTS
import tomllib
from importlib.metadata import distributions
from pathlib import Path
wanted = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]["spark"]
locked = [f"{found.name}=={found.version}" for found in distributions() if found.name != "lakehouse-utils"]
for name, lines in {"wanted": wanted, "locked": locked}.items():
    Path(".venv", f".{name}").write_text("\n".join(lines))
endef
export SPARK_REQUIREMENTS
