#!/usr/bin/env bash
# Builds one more backend of ggml, to be loaded at run time: Scripts/backend.sh NAME FOLDER
#
# NAME is cuda, cann, blas or another one of llama.cpp's; its toolkit has to be installed, and
# cmake, ninja, g++ and pip. Leaves libggml-NAME.so in FOLDER. PDSERVE_BACKEND_OPTIONS has further
# options of cmake. A worker loads the file that GGML_BACKEND_PATH names, or one beside its
# executable.
set -euo pipefail
source "$(dirname "$0")/locations.sh"
source "$(dirname "$0")/llama-source.sh"

say() { printf 'backend: %s\n' "$*"; }
fail() { printf 'backend: %s\n' "$@" >&2; exit 1; }

[ $# -eq 2 ] || fail "usage: $0 NAME FOLDER"
name=$1 folder=$2
[[ $name =~ ^[a-z]+$ ]] || fail "'$name' is no name of a backend; there are cuda, cann, blas, …"
work=$cache/backend-$llama_release-$name
mkdir -p "$work" "$folder"
fetch_llama_source "$work"
read -r -a options <<<"${PDSERVE_BACKEND_OPTIONS:-}"

say "building ggml's backend $name"
# The libraries below it are those that the worker has loaded already.
cmake -S "$work/source" -B "$work/cmake" -G Ninja "${llama_options[@]}" \
  -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF "-DGGML_${name^^}=ON" \
  "${options[@]+"${options[@]}"}" >"$work/cmake.log" 2>&1 ||
  fail "cmake failed; is the toolkit of $name installed? Its output:" \
    "$(tail -n 20 "$work/cmake.log")"
cmake --build "$work/cmake" --target "ggml-$name" -j "$(build_jobs)"
cp "$work/cmake/bin/libggml-$name.so" "$folder/"
say "made $folder/libggml-$name.so"
