#!/usr/bin/env bash
# Runs the suite under the thread sanitizer.
#
# The sanitizer does not see the futex behind Synchronization.Mutex and reports a race for every
# correct use of it. In a copy of the tree, each module that uses Mutex gets one over a pthread
# mutex, which hides the library's.
set -euo pipefail
source "$(dirname "$0")/locations.sh"

copy=$root/.build/tsan-tree
mkdir -p "$copy"
for entry in Package.swift Sources Tests Models Protocols Scripts ARCHITECTURE.md; do
  rm -rf "${copy:?}/$entry"
  cp -a "$root/$entry" "$copy/$entry"
done
for module in "$copy"/Sources/*/* "$copy"/Tests/*; do
  if grep -rqsE '\bMutex[<(]' --include='*.swift' "$module"; then
    cp "$root/Scripts/ThreadSanitizerMutex.txt" "$module/ThreadSanitizerMutex.swift"
  fi
done

# The copies break the tree's own rules.
swift test --package-path "$copy" --scratch-path "$root/.build/tsan" --disable-xctest \
  --sanitize thread --skip TidyTests -Xlinker -rpath -Xlinker "$llama_library_folder" "$@"
