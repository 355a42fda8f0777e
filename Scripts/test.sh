#!/usr/bin/env bash
# Runs `swift test` with these arguments; a run that fails ends with what failed.
set -uo pipefail
cd "$(dirname "$0")/.."

log=.build/test.log
mkdir -p .build
swift test --disable-xctest "$@" 2>&1 | tee "$log"
status=$?
if [ "$status" -ne 0 ]; then
  echo
  echo "What failed, from $log:"
  # An issue is followed by lines that explain it.
  grep -aE -A 4 '✘|error:|Fatal error|signal code' "$log" | grep -avE '◇|✔|^--$' | tail -n 150
fi
exit "$status"
