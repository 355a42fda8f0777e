# The pinned source of llama.cpp, for the scripts that build of it. Sourced, together with
# locations.sh; the script that does so has the functions `say` and `fail`.
# shellcheck shell=bash disable=SC2154

# One compiler per core, but no more than one per GB of memory.
build_jobs() {
  local cores gigabytes
  cores=$(getconf _NPROCESSORS_ONLN)
  gigabytes=$(awk '/^MemTotal/ { print int($2 / 1e6) }' /proc/meminfo 2>/dev/null || true)
  gigabytes=${gigabytes:-$cores}
  [ "$gigabytes" -ge 1 ] || gigabytes=1
  echo $((cores < gigabytes ? cores : gigabytes))
}

archive_is_sound() {
  local sum=(sha256sum)
  command -v sha256sum >/dev/null || sum=(shasum -a 256)
  [ -f "$1" ] && [ "$("${sum[@]}" "$1" | cut -d' ' -f1)" = "$llama_sha256" ]
}

# Leaves the checked source of llama.cpp in $work/source.
fetch_llama_source() {
  local name=llama_cpp_python-$llama_release work=$1
  [ ! -f "$work/source/complete" ] || return 0
  if ! archive_is_sound "$work/$name.tar.gz"; then
    say "downloading the llama.cpp source ($llama_release, 77 MB, checked against its SHA-256)"
    rm -f "$work/$name.tar.gz"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps \
      --no-binary llama-cpp-python --require-hashes -r "$llama_requirements" -d "$work" ||
      fail "the download failed; look at the network and at pip's settings (pip config list)" \
        "or put $name.tar.gz from PyPI into $work; then run this script again"
  fi
  archive_is_sound "$work/$name.tar.gz" || fail "$work/$name.tar.gz is not the pinned archive"
  rm -rf "$work/source" "${work:?}/$name"
  tar -xf "$work/$name.tar.gz" -C "$work" "$name/vendor/llama.cpp" ||
    fail "unpacking failed; is there free space in $work (df -h)?"
  mv "$work/$name/vendor/llama.cpp" "$work/source"
  touch "$work/source/complete"
}
