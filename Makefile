# The two commands of the README are `make demo` and `make test`. Both make .venv, install what is
# missing, build, and run; a second run reuses what is there.

# The tests start thousands of Pythons, which would compile this package each time.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .stamps
# The SDKs of tests/seams/test_integrations.py: those of `make test`, and the others.
INTEGRATIONS := $(STAMPS)/integrations $(STAMPS)/integrations-more $(STAMPS)/integrations-crewai
# The other releases of MLflow that are supported.
OTHER_MLFLOWS := $(addprefix $(STAMPS)/mlflow-,$(shell cat tests/support/mlflow_releases.txt))
# Servers that are older than these.
OLDER_SERVERS := $(addprefix $(STAMPS)/mlflow-,$(shell cat tests/support/mlflow_servers.txt))
# Other Pythons that MLflow can be installed for.
PYTHONS := 3.10 3.12 3.13 3.14
OTHER_PYTHONS := $(addprefix $(STAMPS)/python-,$(PYTHONS))
# What runs with the oldest releases of the libraries that pyproject.toml allows.
OLDEST      := click==8.0.0 platformdirs==3.0.0 rich==12.0.0 urllib3==1.26.0
WITH_OLDEST := tests/cli $(addprefix tests/sender/test_,collector.py delivery.py exchange.py faults_answers.py signing_in.py)
C_FILES := $(shell find ext -name "*.[ch]")
SOURCES := $(C_FILES) setup.py pyproject.toml python/mlflow_modules.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-long matrix moved-seams resolver test-ui sanitize fuzz coverage instructions soak bench bench-quick bench-compare docs lint format wheel wheels clean

# How long programs record in `make soak`.
MINUTES ?= 5

# How long `make fuzz` runs each of its targets, in seconds; two run at a time.
FUZZ_SECONDS ?= 60

## every target that is called by hand
help:
	@awk '/^## / { text = substr($$0, 4); next } \
		text != "" && /^[a-z-]+:/ { sub(/:.*/, ""); printf "make %-14s %s\n", $$0, text } { text = "" }' $(MAKEFILE_LIST)

## run the example pipeline and show its traces
demo: $(STAMPS)/demo
	$(BIN)/python examples/rag_pipeline.py

# Tests wait for servers and senders half of their time, so there are more processes than a small machine has processors.
## build and run the tests (minutes)
test: $(STAMPS)/built $(STAMPS)/test-system $(STAMPS)/integrations
	$(BIN)/python -m pytest -n 4 -m "not long" --durations 25

## the longer proofs, which make test leaves out (an hour or two)
test-long: $(STAMPS)/built $(STAMPS)/test-system $(STAMPS)/test-browser $(STAMPS)/jupyterlab $(INTEGRATIONS) $(OTHER_MLFLOWS) $(OLDER_SERVERS) $(STAMPS)/newest-mlflow \
		$(STAMPS)/oldest $(STAMPS)/other-pythons wheels
	$(BIN)/python -m pytest -n 3 -m long --timeout 3000 --durations 40
	.venv-oldest/bin/python -m pytest -n 3 -p no:platformdirs -m "not long" $(WITH_OLDEST)
	$(BIN)/python .ci/releases.py

# With the oldest release of MLflow that is supported, this one and the newest.
## equal to MLflow on the other Pythons, with the wheel (an hour)
matrix: wheels $(OTHER_PYTHONS) $(STAMPS)/test-system
	$(BIN)/python .ci/releases.py $(addprefix --python ,$(PYTHONS))

# Which names of MLflow's that are used the newest release has moved: to be looked at each week.
## which names of MLflow's the newest release has moved
moved-seams: $(STAMPS)/built
	$(BIN)/python .ci/moved_seams.py

# Whether this package changes which versions of other packages are installed.
## whether this package changes what frameworks have installed (ten minutes, and PyPI)
resolver: $(STAMPS)/wheel-tools
	.venv-wheels/bin/python .ci/resolver.py

# PICTURES=docs/images takes those of the documentation anew.
## MLflow's UI in a browser: it shows of traces what it shows of MLflow's (PICTURES)
test-ui: $(STAMPS)/built $(STAMPS)/test-browser $(STAMPS)/jupyterlab
	$(BIN)/python -m pytest -n 2 --timeout 1200 --durations 10 tests/ui $(if $(PICTURES),--pictures $(PICTURES))

## the core's tests under AddressSanitizer and UndefinedBehaviorSanitizer
sanitize: $(STAMPS)/built $(STAMPS)/test-system
	.ci/sanitize

## a minute of each fuzzer of the core's readers (FUZZ_SECONDS)
fuzz: $(STAMPS)/built $(STAMPS)/test-system
	$(BIN)/python tests/support/fuzzing.py $(FUZZ_SECONDS)

## which lines of the core its tests run
coverage: $(STAMPS)/built $(STAMPS)/test-system
	.ci/coverage

# Fails where a traced call takes more than 3 % more instructions than before.
## whether a traced call takes more instructions than before
instructions: $(STAMPS)/built $(STAMPS)/test-system
	$(BIN)/python benchmarks/instructions.py --check

## mixed load with faults for MINUTES: what arrives, how late, and what it needs
soak: $(STAMPS)/built
	$(BIN)/python tests/support/soak.py $(MINUTES)

## compare with MLflow and other tracers; makes docs/benchmarks.md anew (five minutes)
bench: $(STAMPS)/built $(STAMPS)/peers
	$(BIN)/python benchmarks/run.py

## some of them once, one table (a minute)
bench-quick: $(STAMPS)/built $(STAMPS)/peers
	$(BIN)/python benchmarks/run.py --quick

# What two runs differ in, beyond the spread of their rounds.
A ?= HEAD
B ?= benchmarks/results.json
## two runs of make bench, A and B: files of results, or commits
bench-compare: $(STAMPS)/venv
	$(BIN)/python benchmarks/bench_compare.py $(A) $(B)

# Not --quiet, with which warnings of links do not count.
## the documentation as a site, into build/site; its links are checked
docs: $(STAMPS)/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --config-file docs/site/mkdocs.yml

## style, types, who may import whom, and make docs
lint: $(STAMPS)/built docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/python .ci/check_layers.py
	$(BIN)/python .ci/check_python_calls.py
	$(BIN)/python .ci/check_interruptions.py
	cd python && ../$(BIN)/lint-imports --no-logo ../pyproject.toml
	$(BIN)/mypy
	$(BIN)/stubtest mlflow_fasttrace._core --mypy-config-file pyproject.toml

## mends the style
format: $(STAMPS)/built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

## a wheel for every platform, and the source distribution, into dist/
wheels: $(STAMPS)/wheel-tools $(STAMPS)/built
	.venv-wheels/bin/python .ci/wheels.py

## the cp310-abi3 wheel, audited
wheel: $(STAMPS)/built
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	$(BIN)/abi3audit --strict dist/*.whl

## removes what was built and installed, but for .venv
clean:
	rm -rf build dist .pythons $(STAMPS) .venv-integrations* $(addprefix .venv-,$(notdir $(OTHER_MLFLOWS) $(OLDER_SERVERS))) .venv-docs .venv-newest-mlflow .venv-oldest .venv-peers .venv-python-* .venv-wheels python/mlflow_fasttrace/*.so python/mlflow_fasttrace-stubs python/*.egg-info

# ---- what the above need ----

# The C libraries and, on Debian and Ubuntu, the package that has venv.
$(STAMPS)/system: .ci/install-system.sh
	@mkdir -p $(STAMPS)
	PYTHON=$(PYTHON) sh .ci/install-system.sh
	@touch $@

# The databases that tests start, and clang; only tests need them.
$(STAMPS)/test-system: .ci/install-test-system.sh
	@mkdir -p $(STAMPS)
	sh .ci/install-test-system.sh
	@touch $@

# The browser, for tests/ui.
$(STAMPS)/test-browser: .ci/install-browser.sh
	@mkdir -p $(STAMPS)
	sh .ci/install-browser.sh
	@touch $@

# Shows the tutorial's notebook in tests/ui.
$(STAMPS)/jupyterlab: $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet "jupyterlab>=4"
	@touch $@

# An environment in which the package can be built.
$(STAMPS)/python: $(STAMPS)/system
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "setuptools>=77" wheel
	@touch $@

$(STAMPS)/package: $(STAMPS)/python $(SOURCES)
	FASTTRACE_WERROR=1 $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

# What the example and MLflow's UI need: MLflow with some of its packages. It goes in beside the build, and what
# Python compiles of it is what runs.
$(STAMPS)/demo-packages: $(STAMPS)/python pyproject.toml
	$(BIN)/python .ci/requirements.py demo > $(STAMPS)/demo-packages.txt
	$(BIN)/python -m pip install --quiet --no-compile -r $(STAMPS)/demo-packages.txt
	$(BIN)/python .ci/requirements.py test | grep "^mlflow==" > $(STAMPS)/mlflow.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -r $(STAMPS)/mlflow.txt
	@touch $@

# Both at once.
$(STAMPS)/demo: $(STAMPS)/python $(SOURCES)
	$(MAKE) --no-print-directory -j 2 $(STAMPS)/package $(STAMPS)/demo-packages
	@touch $@

# All that tests and checks need.
$(STAMPS)/venv: $(STAMPS)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python .ci/requirements.py test > $(STAMPS)/requirements.txt
	$(BIN)/python -m pip install --quiet -r $(STAMPS)/requirements.txt
	@touch $@

$(STAMPS)/built: $(STAMPS)/package $(STAMPS)/venv
	@touch $@

# Over what is in .venv.
$(STAMPS)/integrations: tests/programs/integrations/requirements.txt
$(STAMPS)/integrations-more: tests/programs/integrations/requirements-more.txt
$(STAMPS)/integrations-crewai: tests/programs/integrations/requirements-crewai.txt
$(INTEGRATIONS): .ci/overlay_venv.py $(STAMPS)/venv
	$(BIN)/python .ci/overlay_venv.py .venv-$(@F) \
		-r tests/programs/integrations/requirements$(@F:integrations%=%).txt
	@touch $@

# The tests call the command by its name, so it is beside this Python, too.
$(STAMPS)/oldest: .ci/overlay_venv.py $(STAMPS)/built
	$(BIN)/python .ci/overlay_venv.py .venv-oldest --no-deps $(OLDEST)
	sed "1s|.*|#!$(CURDIR)/.venv-oldest/bin/python|" $(BIN)/mlflow-fasttrace > .venv-oldest/bin/mlflow-fasttrace
	chmod +x .venv-oldest/bin/mlflow-fasttrace
	@touch $@

# The tracers that the benchmark compares with, in an environment that nothing else is in.
$(STAMPS)/peers: benchmarks/peers.txt $(STAMPS)/venv
	$(BIN)/python -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r benchmarks/peers.txt
	@touch $@

# MkDocs and what it needs, alone: they hold back nothing that the tests need.
$(STAMPS)/docs: docs/site/requirements.txt $(STAMPS)/system
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet -r docs/site/requirements.txt
	@touch $@

# What builds wheels for other platforms, and what checks them.
$(STAMPS)/wheel-tools: .ci/overlay_venv.py $(STAMPS)/venv pyproject.toml
	$(BIN)/python .ci/requirements.py wheels > $(STAMPS)/wheel-tools.txt
	$(BIN)/python .ci/overlay_venv.py .venv-wheels -r $(STAMPS)/wheel-tools.txt
	@touch $@

# Pythons that the distribution does not have.
$(STAMPS)/other-pythons: .ci/other_pythons.py
	@mkdir -p $(STAMPS)
	$(PYTHON) .ci/other_pythons.py
	@touch $@

# One release of MLflow, alone, over what the others need.
$(OTHER_MLFLOWS) $(OLDER_SERVERS): .ci/overlay_venv.py $(STAMPS)/venv
	$(BIN)/python .ci/overlay_venv.py .venv-$(@F) --no-deps "mlflow==$(@F:mlflow-%=%)"
	@touch $@

$(OTHER_PYTHONS): .ci/python_venvs.py $(STAMPS)/venv $(STAMPS)/other-pythons
	$(BIN)/python .ci/python_venvs.py $(@F:python-%=%)
	@touch $@

# The newest MLflow there is, alone: its parts may not be there yet.
$(STAMPS)/newest-mlflow: .ci/overlay_venv.py $(STAMPS)/venv
	$(BIN)/python .ci/overlay_venv.py .venv-newest-mlflow --no-deps "mlflow>3.17.2"
	@touch $@
