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
OUT ?= runs/demo
POLICY ?= builtin/policy
BACKBONE ?= builtin/backbone

.PHONY: demo demo-from-scratch test lint env

# Each stage skips what is there: killed at any moment, the next `make demo` goes on.
demo: $(READY)
	$(RUN) -m data_synth.trees --config configs/demo/trees.yaml --policy $(POLICY) --run $(OUT)/trees
	$(RUN) -m data_synth.label --config configs/demo/label.yaml --trees $(OUT)/trees --run $(OUT)/labels
	$(RUN) -m train.prm --config configs/demo/prm.yaml --backbone $(BACKBONE) --run $(OUT)/prm \
	  --dataset $(OUT)/labels/dataset.parquet
	$(RUN) -m eval.candidates --config configs/demo/candidates.yaml --policy $(POLICY) --run $(OUT)/candidates
	$(RUN) -m eval.rewards --config configs/demo/rewards.yaml --candidates $(OUT)/candidates \
	  --reward_model $(OUT)/prm --run $(OUT)/rewards
	$(RUN) -m eval.report --run $(OUT)

# The built-in models from random weights, then the loop with them: about a day on two cores, half an hour on a GPU.
demo-from-scratch: $(READY)
	$(RUN) -m train.policy --config configs/builtin/backbone_start.yaml
	$(RUN) -m train.policy --config configs/builtin/backbone.yaml
	$(RUN) -m train.policy --config configs/builtin/policy.yaml
	$(MAKE) demo POLICY=runs/builtin/policy BACKBONE=runs/builtin/backbone OUT=runs/demo-from-scratch

test: $(READY)
	$(RUN) -m pytest -m "not gpu and not server"

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

env: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*p["dependencies"], *p["optional-dependencies"]["dev"], sep="\n")' > $(VENV)/requirements.txt
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --requirement $(VENV)/requirements.txt
	touch $@
