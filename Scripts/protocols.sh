#!/usr/bin/env bash
# Regenerates the C code of the control messages from Protocols/*.proto.
# With --check, changes nothing and fails with a diff if the committed code is not what protoc-c
# writes.
set -euo pipefail
source "$(dirname "$0")/locations.sh"

command -v protoc-c >/dev/null || {
  echo "protocols: protoc-c is missing; run Scripts/setup.sh" >&2
  exit 1
}
target=$root/Sources/CLibraries/CWireMessages
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

mkdir "$fresh/include"
protoc-c --proto_path="$root/Protocols" --c_out="$fresh" "$root/Protocols/"*.proto
mv "$fresh/"*.pb-c.h "$fresh/include/"

case "${1:-}" in
  --check)
    diff -ru "$target" "$fresh" || {
      echo "protocols: the committed code differs from Protocols/*.proto;" \
        "run Scripts/protocols.sh and commit the result" >&2
      exit 1
    }
    ;;
  "")
    mkdir -p "$target/include"
    cp "$fresh/"*.pb-c.c "$target/"
    cp "$fresh/include/"*.pb-c.h "$target/include/"
    ;;
  *)
    echo "usage: protocols.sh [--check]" >&2
    exit 2
    ;;
esac
