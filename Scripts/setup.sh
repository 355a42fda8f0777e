#!/usr/bin/env bash
# Installs what pdserve is built from: system packages, and libllama (pinned, built once).
# Can be run again at any time: finished steps are skipped, an interrupted build goes on.
set -euo pipefail
source "$(dirname "$0")/locations.sh"
source "$(dirname "$0")/llama-source.sh"

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
trap 'fail "interrupted; run the script again, it goes on where it was"' INT TERM

check_swift() {
  local again="install it from https://www.swift.org/install, then run this script again"
  command -v swift >/dev/null ||
    fail "the Swift toolchain is missing (6.2 or newer is needed, with 'swift' on PATH)" "$again"
  local version
  version=$(swift --version 2>/dev/null | grep -o 'Swift version [0-9]*\.[0-9]*' || true)
  version=${version##* }
  [ -n "$version" ] || fail "'swift --version' does not work; start it by hand to see why"
  local major=${version%%.*} minor=${version#*.}
  if [ "$major" -lt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -lt 2 ]; }; then
    fail "Swift $version is too old, 6.2 or newer is needed" "$again"
  fi
  say "Swift $version"
}

install_debian_packages() {
  local wanted=(cmake ninja-build g++ make git pkg-config python3 python3-pip curl iproute2
    libprotobuf-c-dev protobuf-c-compiler libzstd-dev libssl-dev libsqlite3-dev)
  local missing=() package
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
      missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "system packages are installed"
    return
  fi
  local by_hand="or run as root: apt-get update && apt-get install ${missing[*]}"
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      fail "packages are missing, and there is no sudo to install them with" "$by_hand"
    as_root=(sudo "${as_root[@]}")
  fi
  say "installing ${missing[*]}"
  local options=(-qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  "${as_root[@]}" apt-get "${options[@]}" update ||
    fail "the package lists could not be fetched; look at the network and apt's sources" "$by_hand"
  "${as_root[@]}" apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}" ||
    fail "the packages could not be installed; apt's reason is above" \
      "look at the network, at the free space (df -h), at 'dpkg --configure -a'" "$by_hand"
}

# Untested: written for Homebrew, never run on a Mac by the authors.
install_homebrew_packages() {
  command -v brew >/dev/null ||
    fail "Homebrew is missing" "install it from https://brew.sh, then run this script again"
  local wanted=(cmake ninja pkg-config python protobuf-c zstd openssl@3 sqlite) missing=() package
  for package in "${wanted[@]}"; do
    brew list "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] || brew install "${missing[@]}" ||
    fail "brew could not install ${missing[*]}"
  say "system packages are installed"
}

require_free_space() {
  local needed_megabytes=1000 free_megabytes
  free_megabytes=$(($(df -Pk "$cache" | awk 'NR == 2 { print $4 }') / 1024))
  [ "$free_megabytes" -ge "$needed_megabytes" ] ||
    fail "$cache has $free_megabytes MB free, building libllama needs $needed_megabytes MB" \
      "free some, or name another folder: PDSERVE_CACHE=/some/folder"
}

build_llama() {
  if [ -f "$llama_prefix/complete" ]; then
    say "libllama is built at $llama_prefix"
    return
  fi
  if installed_llama_is_usable; then
    say "libllama is installed at $llama_library_folder"
    return
  fi
  local work=$cache/build-$llama_release-$llama_digest
  mkdir -p "$work" || fail "$work can't be made" "name a folder: PDSERVE_CACHE=/some/folder"
  # One builder at a time; a second one waits and then finds the work done.
  if command -v flock >/dev/null; then
    exec 9>"$cache/build.lock"
    flock -n 9 || { say "another set-up is building libllama; waiting for it" && flock 9; }
    [ ! -f "$llama_prefix/complete" ] || return 0
  fi
  require_free_space
  fetch_llama_source "$work"

  say "building libllama once (some minutes; about six of two cores)"
  # shellcheck disable=SC2016 # the dynamic linker reads $ORIGIN
  local library_path='$ORIGIN'
  [ "$(uname -s)" != Darwin ] || library_path=@loader_path
  # An interrupted build goes on, unless cmake finds its folder in disorder.
  # -w: other people's warnings would hide the progress and our own errors.
  CFLAGS="${CFLAGS:-} $llama_compiler_flags -w" \
    CXXFLAGS="${CXXFLAGS:-} $llama_compiler_flags -w" \
    cmake -S "$work/source" -B "$work/cmake" -G Ninja "${llama_options[@]}" \
    -DCMAKE_INSTALL_PREFIX="$llama_prefix" -DCMAKE_INSTALL_RPATH="$library_path" \
    -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON >"$work/cmake.log" 2>&1 ||
    { rm -rf "$work/cmake" && fail "cmake failed; its output is in $work/cmake.log"; }
  NINJA_STATUS='setup: libllama [%f/%t, %e s] ' cmake --build "$work/cmake" -j "$(build_jobs)" ||
    fail "the build of libllama failed; see the lines above" \
      "a compiler that was killed lacked memory; then run this script again, it goes on"
  install_llama "$work"
  say "libllama is built at $llama_prefix"
}

install_llama() {
  local work=$1 headers=$llama_prefix/include/llama-common
  rm -rf "$llama_prefix"
  cmake --install "$work/cmake" >>"$work/cmake.log" ||
    fail "libllama could not be installed to $llama_prefix; is there free space (df -h)?"
  # The chat templates and grammars of `common` have no C API: its headers come along.
  mkdir -p "$headers"
  (cd "$work/source/common" && find . -name '*.h' -print0 | tar -cf - --null -T -) |
    tar -xf - -C "$headers"
  cp -R "$work/source/vendor/nlohmann" "$headers/"
  cp -R "$work/cmake/bin/"libllama-common.* "$llama_prefix/lib/"
  echo "$llama_commit" >"$headers/COMMIT"
  touch "$llama_prefix/complete"
  rm -rf "$work"
}

check_swift
case "$(uname -s)" in
  Linux)
    command -v apt-get >/dev/null || fail "only Debian and Ubuntu are set up by this script" \
      "install cmake, ninja, g++, pkg-config, pip, protobuf-c, zstd and OpenSSL 3 with headers," \
      "then build libllama as the functions fetch_llama_source and build_llama in this file do"
    install_debian_packages ;;
  Darwin) install_homebrew_packages ;;
  *) fail "this system ($(uname -s)) is not supported; use Linux or macOS" ;;
esac
build_llama
say "done"
