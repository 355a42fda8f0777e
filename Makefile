# `make help` lists the targets.

SHELL := bash
MODEL ?= Models/tiny.gguf
HTTP ?= 127.0.0.1:8080
PREFILL_WORKERS ?= 1
DECODE_WORKERS ?= 1
FOLDER ?= run/certificates
HOSTS ?= localhost,127.0.0.1
SEEDS ?= 1000
SEED ?= 1
ROUNDS ?= 40
NETWORK ?= loopback
MINUTES ?= 60
FUZZ_FRAMES ?= 100000000
CANCELLATIONS ?= 10000

# Tests at once; their own threads and processes share the cores too.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH ?= 4

# What --version tells of builds that are given away.
commit = $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)

locations := source Scripts/locations.sh
libraries := -Xlinker -rpath -Xlinker $$llama_library_folder

.PHONY: help setup serve build test check lint tidy protocols-check format protocols \
	certificates fuzz faults limits chaos soak simulate tsan image compose-test hosts-test \
	release clean
.NOTPARALLEL:

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 18

setup: ## install system packages, build libllama once
	@Scripts/setup.sh

serve: setup ## serve MODEL with all five services on this machine until Ctrl-C
	$(locations) && PDSERVE_COMMIT=$(commit) swift build -c release $(libraries)
	.build/release/pdserve up --model "$(MODEL)" --http $(HTTP) \
		--prefill-workers $(PREFILL_WORKERS) --decode-workers $(DECODE_WORKERS)

build: ## build everything, refuse imports that Package.swift does not declare
	$(locations) && swift build --build-tests $(libraries) \
		--explicit-target-dependency-import-check error

test: setup ## run the whole suite; FILTER=name runs a part of it
	$(locations) && Scripts/test.sh $(libraries) $(if $(FILTER),--filter "$(FILTER)")

check: setup lint protocols-check build tidy ## everything but the long tests

lint: ## check the format of Swift, and shell scripts where shellcheck is there
	@Scripts/lint.sh

tidy: ## check sizes, layers and words of the tree
	$(locations) && swift test --disable-xctest $(libraries) --filter TidyTests

protocols-check: ## see that the generated message code is what Protocols/*.proto say
	Scripts/protocols.sh --check

format: ## format all Swift files in place
	swift format --in-place --recursive --parallel Package.swift Sources Tests

protocols: ## generate the message code from Protocols/*.proto
	Scripts/protocols.sh

certificates: ## make an authority and a certificate per role in FOLDER for HOSTS
	$(locations) && swift build --product pdserve $(libraries)
	.build/debug/pdserve certificates --folder "$(FOLDER)" --host "$(HOSTS)"

fuzz: setup ## feed the wire decoder FUZZ_FRAMES damaged frames; FUZZ_SEED repeats a run
	$(locations) && FUZZ_FRAMES=$(FUZZ_FRAMES) swift test -c release --disable-xctest \
		$(libraries) --filter FrameFuzzTests

faults: setup ## cut, flip, stall and cancel KV transfers at every place, CANCELLATIONS times
	$(locations) && KV_FAULTS=long KV_CANCELLATIONS=$(CANCELLATIONS) swift test \
		--disable-xctest $(libraries) --filter 'WorkerServiceTests|KVLossTests'

chaos: setup ## ROUNDS rounds of faults under load, by SEED; NETWORK=namespaces needs root
	$(locations) && swift build -c release $(libraries)
	.build/release/benchmark chaos --rounds $(ROUNDS) --seed $(SEED) --network $(NETWORK)

soak: setup ## MINUTES of load with light faults; sees whether any process grows
	$(locations) && swift build -c release $(libraries)
	mkdir -p run
	.build/release/benchmark soak --minutes $(MINUTES) --seed $(SEED) --json run/soak.json

simulate: setup ## run SEEDS simulated clusters from SEED on, both cores; SIMULATE adds options
	$(locations) && swift build -c release --product simulate $(libraries)
	.build/release/simulate --from $(SEED) --seeds $(SEEDS) $(SIMULATE)

limits: setup ## exhaust files, memory, disks and patience, then overload a cluster
	$(locations) && LIMITS=long swift test --disable-xctest $(libraries) \
		--filter 'DescriptorTests|SlowClientTests|MemoryLossTests|FullDiskTests|ClockTests'
	$(locations) && swift build -c release $(libraries)
	.build/release/benchmark overload

tsan: setup ## run the suite under the thread sanitizer
	Scripts/tsan.sh

image: ## build the container image that docker-compose.yml runs
	docker build -f Docker/Dockerfile --build-arg PDSERVE_COMMIT=$(commit) -t pdserve:local .

compose-test: ## the compose stack under load, faults and upgrades; PARTS chooses
	Scripts/compose-test.sh

hosts-test: setup ## serve on hosts that are network namespaces, over links of RATE; needs root
	$(locations) && swift build -c release $(libraries)
	Scripts/hosts-test.sh

release: ## tarball, checksums and bill of materials of this commit, in release/
	Scripts/release.sh

clean: ## forget what was built here; libllama stays in its cache
	rm -rf .build
