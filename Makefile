# `make` lists the targets. Needs a POSIX shell and GNU make 3.81 or newer; docs/setup.md says how to work without make.

# PYTHON=python3.12   create .venv with this Python; empty: the first supported one, or one that uv downloads
# UV=/path/to/uv      set up with this uv; UV= (empty): set up with pip
# ARGS="..."          passed to the program that runs
# OPTS="..."          passed to JupyterLab
# ENGINE=spark        with run: run the job on Spark; with run and lab: add the packages of the Spark engine to .venv
ENGINE ?= local
PYTHON ?=
UV ?= uv
ARGS ?=
OPTS ?=

VENV = .venv/bin/python
SCRIPT = PYTHON="$(PYTHON)" UV="$(UV)" scripts/run
SET_UP = $(SCRIPT) set_up.py --python "$(PYTHON)" --uv "$(UV)"
PYTEST = $(VENV) -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: help run maintain lab progress notebooks test test-all test-nightly torture lint bench spark-cluster spark-cluster-stop lock clean
.PHONY: set-up set-up-with-spark

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

run: $(if $(filter spark,$(ENGINE)),set-up-with-spark,set-up) ## build the lake: landing -> bronze -> silver -> gold; ENGINE=spark, ARGS="--verbose"
	@$(VENV) ingestion_processor.py $(if $(filter-out local,$(ENGINE)),--engine $(ENGINE)) $(ARGS)

lab: $(if $(filter spark,$(ENGINE)),set-up-with-spark,set-up) ## open JupyterLab on notebooks/; OPTS="--no-browser", ENGINE=spark
	@$(VENV) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $(OPTS)

maintain: set-up ## compact small files and delete old ones that are no longer needed; ARGS="--dry-run" to only show it
	@$(VENV) ingestion_processor.py --maintain $(ARGS)

progress: set-up ## show which exercises of the course are solved
	@$(VENV) -m lakehouse_utils.course.exercises $(ARGS)

notebooks: set-up-with-spark ## run every notebook and save it with its new outputs; ARGS="02 05" for some of them
	@$(VENV) tests/notebooks/books.py $(ARGS)

test: set-up-with-spark ## run the tests, without the slow ones; ARGS="tests/lake" for some of them
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: set-up-with-spark ## run the slow tests too, then the main ones on every other supported Python that is installed
	@$(PYTEST) $(if $(ARGS),-m "not nightly" $(ARGS),-m "not slow")
	@$(if $(ARGS),,$(PYTEST) -m "slow and not nightly")
	@$(if $(ARGS),,$(VENV) scripts/test_other_pythons.py)

test-nightly: set-up-with-spark ## run the tests that test-all leaves out, then those of `make test` on every other supported Python
	@$(PYTEST) -m nightly $(ARGS)
	@$(if $(ARGS),,$(VENV) scripts/test_other_pythons.py --all)

torture: set-up ## kill and disturb the job in many rounds (about an hour); ARGS="kill --rounds 12" for one kind
	@$(VENV) tests/torture.py $(ARGS)

lint: set-up-with-spark ## check style, format, types, imports and spelling; ARGS="types" for some of the checks
	@$(VENV) scripts/lint.py $(ARGS)

bench: set-up-with-spark ## run the quick benchmarks and print one table; ARGS="--rows 3000000 --scale 200"
	@$(VENV) benchmarks/summary.py $(ARGS)

spark-cluster: set-up ## start a small Apache Spark cluster on this machine (needs Java 17 and Maven; 0.5 GB once)
	@$(VENV) -m lakehouse_utils.spark start

spark-cluster-stop: set-up ## stop the cluster; what it downloaded is kept
	@$(VENV) -m lakehouse_utils.spark stop

lock: set-up ## compile requirements.txt from pyproject.toml; ARGS="--upgrade" for newer versions
	@$(VENV) -m uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet -o requirements.txt $(ARGS)

clean: ## stop the S3 server and the Spark cluster; remove .venv, .lakehouse (the lake on that server) and caches
	@$(SCRIPT) clean.py

set-up: ## set up .venv if it is not up to date; every target above that needs it does this first
	@$(SET_UP)

set-up-with-spark:
	@$(SET_UP) --spark
