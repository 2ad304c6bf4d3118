# make demo    sets everything up in .venv, then runs the whole main job on the embedded default
# make test    sets everything up in .venv, then runs the test suite
# make proofs  sets everything up in .venv, then runs the slow tests that CI leaves out
# make plans   plans every recipe of configs/recipes by the TPU compiler, into plans/: hours
# make newest  the demo and some tests with the newest versions of everything, in .venv-newest
# make docs    the site of docs/, in build/site; a broken link is an error
# make wheel   the package as a wheel, installed in a fresh environment that runs its command
# make lint    format, lint, import rules, types and shell scripts

# The first interpreter that runs and is 3.11 or newer; override with PYTHON=...
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt
SEED ?= 0
WORKDIR ?= runs/demo-seed$(SEED)

.PHONY: demo test proofs plans newest docs wheel lint clean

demo: $(VENV)/.core
	$(VENV)/bin/python -m evr1.main --config=configs/demo.py --config.workdir=$(WORKDIR) --config.seed=$(SEED)

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

proofs: $(VENV)/.test
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m slow

plans: $(VENV)/.core
	$(PIP) -e ".[tpu-compiler]"
	$(VENV)/bin/python tools/plan_recipes.py --out=plans

# Without constraints; deprecations are shown, and are errors where evr1 itself makes the call.
newest: | $(VENV)/bin/python
	$(VENV)/bin/python -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e ".[test]"
	.venv-newest/bin/python -W default::DeprecationWarning -m evr1.main --config=configs/demo.py \
		--config.workdir=runs/newest --config.num_steps=2 --config.eval.prompts=24
	.venv-newest/bin/python -m pytest -q -W default::DeprecationWarning \
		-W error::DeprecationWarning:evr1 tests/rl tests/learner tests/models/test_hf.py

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict
	@! grep -rlE '<(script|link|img)[^>]+(src|href)="https?:' build/site --include='*.html' || \
		{ echo "error: these pages load something from the network"; exit 1; }

# The environment sees the packages of $(VENV) by a .pth file, and evr1 by the wheel alone.
wheel: $(VENV)/.core
	rm -rf build/wheel build/lib build/bdist.*
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(VENV)/bin/python -m venv --without-pip build/wheel/venv
	$(VENV)/bin/python -m pip --python build/wheel/venv/bin/python install --quiet --no-deps build/wheel/*.whl
	$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(build/wheel/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/core.pth"
	cd build/wheel && venv/bin/evr1 --help && venv/bin/evr1 train --help=checkpoint

lint: $(VENV)/.lint
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright --venvpath .
	$(VENV)/bin/shellcheck tpu/*.sh .ci/run

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install one or set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: setup.py constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) -e ".[lint]"
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-newest build *.egg-info
