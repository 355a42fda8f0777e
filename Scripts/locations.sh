# Where set-up puts things and the build finds them. Sourced by the other scripts, sets variables.
# shellcheck shell=bash disable=SC2034

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${PDSERVE_CACHE:-${XDG_CACHE_HOME:-${HOME:-$root/.build}/.cache}/pdserve}

llama_requirements=$root/Scripts/llama-requirements.txt
llama_release=$(sed -n 's/^llama-cpp-python==\([0-9.]*\).*/\1/p' "$llama_requirements")
llama_sha256=$(sed -n 's/.*--hash=sha256:\([0-9a-f]*\).*/\1/p' "$llama_requirements")
llama_commit=0c1e57098

# ggml's own thread pool instead of OpenMP: spinning at OpenMP's barriers costs up to five times the
# throughput when another process wants the same cores, which is the normal case for this product.
llama_options=(
  -DCMAKE_BUILD_TYPE=Release
  -DBUILD_SHARED_LIBS=ON
  -DGGML_NATIVE="${PDSERVE_LLAMA_NATIVE:-ON}"
  -DGGML_OPENMP=OFF
  -DLLAMA_BUILD_COMMON=ON
  -DLLAMA_BUILD_TESTS=OFF
  -DLLAMA_BUILD_TOOLS=OFF
  -DLLAMA_BUILD_EXAMPLES=OFF
  -DLLAMA_BUILD_SERVER=OFF
  -DLLAMA_BUILD_APP=OFF
  -DLLAMA_OPENSSL=OFF
  -DLLAMA_BUILD_NUMBER=0
  -DLLAMA_BUILD_COMMIT="$llama_commit"
)
# Further cmake options, for example PDSERVE_LLAMA_OPTIONS="-DGGML_CUDA=ON".
read -r -a llama_extra_options <<<"${PDSERVE_LLAMA_OPTIONS:-}"
llama_options+=("${llama_extra_options[@]+"${llama_extra_options[@]}"}")

# GCC before 15 takes stores to an AMX tile configuration for dead and leaves them out: the first
# multiplication of quantised numbers then ends the process (SIGILL). Others: PDSERVE_LLAMA_AMX=ON.
llama_compiler_flags=
if [ "$(uname -m)" = x86_64 ] && [ "${PDSERVE_LLAMA_AMX:-OFF}" != ON ]; then
  llama_compiler_flags="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
fi

# Another release or other options are another build, beside the first one.
llama_digest=$(printf '%s\n' "$llama_release" "${llama_options[@]}" "$llama_compiler_flags" |
  cksum | cut -d' ' -f1)
llama_prefix=$cache/llama-$llama_release-$llama_digest

# An installed libllama is used when it is the pinned version and brings the headers of `common`.
installed_llama_is_usable() {
  local include
  pkg-config --exists llama 2>/dev/null || return 1
  include=$(pkg-config --variable=includedir llama)
  [ -f "$include/llama-common/chat.h" ] &&
    [ "$(cat "$include/llama-common/COMMIT" 2>/dev/null)" = "$llama_commit" ]
}

if installed_llama_is_usable; then
  llama_library_folder=$(pkg-config --variable=libdir llama)
else
  llama_library_folder=$llama_prefix/lib
  export PKG_CONFIG_PATH=$llama_prefix/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
fi
