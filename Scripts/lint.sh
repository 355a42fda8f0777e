#!/usr/bin/env bash
# Checks the format of Swift files, and shell scripts where shellcheck is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

if swift format --version >/dev/null 2>&1; then
  swift format lint --strict --recursive --parallel Package.swift Sources Tests
  echo "lint: Swift files are formatted"
else
  echo "lint: this toolchain has no 'swift format'; the format was not checked" >&2
fi

if command -v shellcheck >/dev/null; then
  shellcheck -x -P SCRIPTDIR Scripts/*.sh .ci/run
  echo "lint: shell scripts are sound"
fi
