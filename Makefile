# Each target is one line of scripts/dev.py, which also runs where there is no make.
PYTHON ?= python3

.PHONY: run test check schemas bench faults client vsix setup

run:       ## open the terminal chat in this folder
	@$(PYTHON) scripts/dev.py run

test:      ## lint, types, schemas and every test
	@$(PYTHON) scripts/dev.py test

check:     ## lint, types and schemas only
	@$(PYTHON) scripts/dev.py check

schemas:   ## generate schemas/ and client-vscode/src/protocol.ts
	@$(PYTHON) scripts/dev.py schemas

bench:     ## measure, relative to floors taken in the same run
	@$(PYTHON) scripts/dev.py bench

faults:    ## prove the promises: thousands of kills, power cuts, full disks… (about two hours)
	@$(PYTHON) scripts/dev.py faults

client:    ## test the VS Code extension only
	@$(PYTHON) scripts/dev.py client

vsix:      ## build the VS Code extension's package for this platform
	@$(PYTHON) scripts/dev.py vsix

setup:     ## only install
	@$(PYTHON) scripts/dev.py setup
