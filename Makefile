# make demo    the whole loop on this machine, nothing needed but a package index; ends with runs/demo/report.html
# make test    the tests
# make lint    ruff, mypy on vlprm/, the import contract
# make demo-from-scratch   teach the built-in models first
#
# The environment is made in $(VENV) when its inputs change. ENV_CACHE=/some/folder keeps it outside the clone, in a
# folder named by a hash of what defines it.

PYTHON ?= python3
ENV_HASH := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
VENV ?= $(if $(ENV_CACHE),$(ENV_CACHE)/vlprm-$(ENV_HASH),.venv)
RUN := PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(VENV)/bin/python
READY := $(VENV)/.ready-$(ENV_HASH)
DEMO := configs/demo

.PHONY: demo demo-from-scratch test lint env clean-demo

demo: $(READY)
	$(RUN) -m data_synth.trees --config $(DEMO)/trees.yaml
	$(RUN) -m data_synth.label --config $(DEMO)/label.yaml
	$(RUN) -m train.prm --config $(DEMO)/prm.yaml
	$(RUN) -m eval.candidates --config $(DEMO)/candidates.yaml
	$(RUN) -m eval.rewards --config $(DEMO)/rewards.yaml
	$(RUN) -m eval.report --config $(DEMO)/report.yaml

test: $(READY)
	$(RUN) -m pytest -m "not gpu and not server"

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

env: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
