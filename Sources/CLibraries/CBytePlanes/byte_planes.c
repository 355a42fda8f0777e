#include "byte_planes.h"

void byte_planes_split_plain(const uint8_t *bytes, size_t pairs, uint8_t *low, uint8_t *high) {
  for (size_t pair = 0; pair < pairs; pair++) {
    low[pair] = bytes[2 * pair];
    high[pair] = bytes[2 * pair + 1];
  }
}

void byte_planes_merge_plain(
    const uint8_t *low, const uint8_t *high, size_t pairs, uint8_t *bytes) {
  for (size_t pair = 0; pair < pairs; pair++) {
    bytes[2 * pair] = low[pair];
    bytes[2 * pair + 1] = high[pair];
  }
}

#if defined(__x86_64__)
#include <immintrin.h>

// Packing works within halves of a register; 0xd8 puts the quarters back in order.
__attribute__((target("avx2"))) static size_t split_vectors(
    const uint8_t *bytes, size_t pairs, uint8_t *low, uint8_t *high) {
  const __m256i low_byte = _mm256_set1_epi16(0xff);
  size_t pair = 0;
  for (; pair + 32 <= pairs; pair += 32) {
    __m256i first = _mm256_loadu_si256((const __m256i *)(bytes + 2 * pair));
    __m256i second = _mm256_loadu_si256((const __m256i *)(bytes + 2 * pair + 32));
    __m256i lows = _mm256_packus_epi16(
        _mm256_and_si256(first, low_byte), _mm256_and_si256(second, low_byte));
    __m256i highs =
        _mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
    _mm256_storeu_si256((__m256i *)(low + pair), _mm256_permute4x64_epi64(lows, 0xd8));
    _mm256_storeu_si256((__m256i *)(high + pair), _mm256_permute4x64_epi64(highs, 0xd8));
  }
  return pair;
}

__attribute__((target("avx2"))) static size_t merge_vectors(
    const uint8_t *low, const uint8_t *high, size_t pairs, uint8_t *bytes) {
  size_t pair = 0;
  for (; pair + 32 <= pairs; pair += 32) {
    __m256i lows = _mm256_loadu_si256((const __m256i *)(low + pair));
    __m256i highs = _mm256_loadu_si256((const __m256i *)(high + pair));
    __m256i first = _mm256_unpacklo_epi8(lows, highs);
    __m256i second = _mm256_unpackhi_epi8(lows, highs);
    _mm256_storeu_si256(
        (__m256i *)(bytes + 2 * pair), _mm256_permute2x128_si256(first, second, 0x20));
    _mm256_storeu_si256(
        (__m256i *)(bytes + 2 * pair + 32), _mm256_permute2x128_si256(first, second, 0x31));
  }
  return pair;
}

bool byte_planes_has_vectors(void) { return __builtin_cpu_supports("avx2"); }

#elif defined(__aarch64__)
#include <arm_neon.h>

static size_t split_vectors(const uint8_t *bytes, size_t pairs, uint8_t *low, uint8_t *high) {
  size_t pair = 0;
  for (; pair + 16 <= pairs; pair += 16) {
    uint8x16x2_t planes = vld2q_u8(bytes + 2 * pair);
    vst1q_u8(low + pair, planes.val[0]);
    vst1q_u8(high + pair, planes.val[1]);
  }
  return pair;
}

static size_t merge_vectors(const uint8_t *low, const uint8_t *high, size_t pairs, uint8_t *bytes) {
  size_t pair = 0;
  for (; pair + 16 <= pairs; pair += 16) {
    uint8x16x2_t planes = {{vld1q_u8(low + pair), vld1q_u8(high + pair)}};
    vst2q_u8(bytes + 2 * pair, planes);
  }
  return pair;
}

bool byte_planes_has_vectors(void) { return true; }

#else

static size_t split_vectors(const uint8_t *bytes, size_t pairs, uint8_t *low, uint8_t *high) {
  (void)bytes, (void)pairs, (void)low, (void)high;
  return 0;
}

static size_t merge_vectors(const uint8_t *low, const uint8_t *high, size_t pairs, uint8_t *bytes) {
  (void)low, (void)high, (void)pairs, (void)bytes;
  return 0;
}

bool byte_planes_has_vectors(void) { return false; }
#endif

void byte_planes_split(const uint8_t *bytes, size_t pairs, uint8_t *low, uint8_t *high) {
  size_t done = byte_planes_has_vectors() ? split_vectors(bytes, pairs, low, high) : 0;
  byte_planes_split_plain(bytes + 2 * done, pairs - done, low + done, high + done);
}

void byte_planes_merge(const uint8_t *low, const uint8_t *high, size_t pairs, uint8_t *bytes) {
  size_t done = byte_planes_has_vectors() ? merge_vectors(low, high, pairs, bytes) : 0;
  byte_planes_merge_plain(low + done, high + done, pairs - done, bytes + 2 * done);
}
