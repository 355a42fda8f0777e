#!/usr/bin/env bash
# Builds a release: Scripts/release.sh [FOLDER]
#
# Leaves in FOLDER (release) a tarball for this kind of processor, its bill of materials and their
# SHA256SUMS. Executables bring Swift's libraries with them, libllama lies beside them and suits any
# x86-64 with AVX2 or any 64-bit ARM. The tarball of a commit has the same files in the same order
# with the commit's time. BUILD_FOLDER is where SwiftPM builds (.build).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'release: %s\n' "$*"; }
fail() { printf 'release: %s\n' "$@" >&2; exit 1; }

export PDSERVE_LLAMA_NATIVE=OFF
folder=${1:-release}
build=${BUILD_FOLDER:-.build}
services=(gateway scheduler prefill-worker decode-worker health-agent pdserve)
[ "$(uname -s)" = Linux ] || fail "releases are built on Linux"
# Executables share much: a window as long as several of them halves the archive.
command -v zstd >/dev/null || fail "zstd is missing: apt-get install zstd"
product=Sources/Adapters/ServiceStart/Product.swift
version=$(sed -n 's/.*let version = "\([0-9.]*\)".*/\1/p' "$product")
[ -n "$version" ] || fail "Product.swift says no version"
grep -q "^## $version" CHANGELOG.md || fail "CHANGELOG.md has no section '## $version'"
commit=$(git rev-parse --short=12 HEAD) || fail "a release is built in a git checkout"
[ -z "$(git status --porcelain)" ] || commit=$commit-dirty
export PDSERVE_COMMIT=$commit
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

Scripts/setup.sh
source Scripts/locations.sh
name=pdserve-$version-linux-$(uname -m)
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/$name
mkdir -p "$tree/bin" "$tree/lib/pdserve" "$tree/share/pdserve"

for service in "${services[@]}"; do
  # shellcheck disable=SC2016 # the dynamic linker reads $ORIGIN
  swift build -c release --static-swift-stdlib --scratch-path "$build" --product "$service" \
    -Xlinker -rpath -Xlinker '$ORIGIN/../lib/pdserve'
  strip -o "$tree/bin/$service" "$build/release/$service"
done
cp -P "$llama_library_folder"/lib*.so* "$tree/lib/pdserve/"
cp -R Documentation Docker docker-compose.yml README.md CHANGELOG.md "$tree/share/pdserve/"
mkdir "$tree/share/pdserve/Models"
cp Models/tiny.gguf Models/README.md "$tree/share/pdserve/Models/"

for service in "${services[@]}"; do
  said=$("$tree/bin/$service" --version) || fail "$service does not start"
  [[ $said == *"$version (commit $commit)" ]] || fail "$service --version says '$said'"
done
"$tree/bin/pdserve" up --once --model Models/tiny.gguf --http 127.0.0.1:0 \
  --folder "$work/run" >"$work/up.log" 2>&1 ||
  fail "the release does not serve:" "$(tail -n 20 "$work/up.log")"
say "the release serves the small model"

python3 Scripts/bill-of-materials.py --folder "$tree" --version "$version" --commit "$commit" \
  --packages Package.resolved --llama "$llama_requirements" >"$folder/$name.cdx.json"
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
  -cf - "$name" | zstd -q -12 --long=27 -T1 -f -o "$folder/$name.tar.zst"
(cd "$folder" && sha256sum "$name.tar.zst" "$name.cdx.json" >SHA256SUMS && sha256sum -c SHA256SUMS)
say "made $folder/$name.tar.zst of commit $commit"
