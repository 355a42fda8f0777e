#include "checksums.h"
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define HAS_INSTRUCTION_CODE 1
#define INSTRUCTION_TARGET __attribute__((target("sse4.2")))
#define CRC_8(crc, word) _mm_crc32_u64((crc), (word))
#define CRC_1(crc, byte) _mm_crc32_u8((uint32_t)(crc), (byte))
#elif defined(__aarch64__)
#define HAS_INSTRUCTION_CODE 1
#define INSTRUCTION_TARGET __attribute__((target("crc")))
#define CRC_8(crc, word) __builtin_arm_crc32cd((uint32_t)(crc), (word))
#define CRC_1(crc, byte) __builtin_arm_crc32cb((uint32_t)(crc), (byte))
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#else
#define HAS_INSTRUCTION_CODE 0
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read in the order of memory");

// Reflected polynomial.
static const uint32_t polynomial = 0x82f63b78u;

// The instruction takes one word a cycle but answers after three, so three lanes run side by side.
enum { lane_bytes = 4096 };

// Filled once before main, only read after that. steps[k][b]: checksum of byte b and k zero bytes.
static uint32_t steps[8][256];
// What a checksum becomes after one lane, and after two lanes, of zero bytes.
static uint32_t after_one_lane[4][256];
static uint32_t after_two_lanes[4][256];
static bool has_instruction;

static uint32_t product(const uint32_t matrix[32], uint32_t vector) {
  uint32_t sum = 0;
  for (int bit = 0; vector != 0; vector >>= 1, bit++) {
    if (vector & 1) sum ^= matrix[bit];
  }
  return sum;
}

// `bytes` is a power of two.
static void fill_shift(uint32_t table[4][256], size_t bytes) {
  uint32_t matrix[32], square[32];
  matrix[0] = polynomial;
  for (int bit = 1; bit < 32; bit++) matrix[bit] = 1u << (bit - 1);
  for (size_t bits = 1; bits < bytes * 8; bits <<= 1) {
    for (int bit = 0; bit < 32; bit++) square[bit] = product(matrix, matrix[bit]);
    memcpy(matrix, square, sizeof matrix);
  }
  for (int part = 0; part < 4; part++) {
    for (uint32_t value = 0; value < 256; value++) {
      table[part][value] = product(matrix, value << (8 * part));
    }
  }
}

static bool detect_instruction(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__) && defined(__linux__)
  return (getauxval(AT_HWCAP) & (1ul << 7)) != 0;  // HWCAP_CRC32
#elif defined(__aarch64__) && defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

__attribute__((constructor)) static void fill_tables(void) {
  for (uint32_t value = 0; value < 256; value++) {
    uint32_t crc = value;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ polynomial : crc >> 1;
    steps[0][value] = crc;
  }
  for (int step = 1; step < 8; step++) {
    for (int value = 0; value < 256; value++) {
      uint32_t crc = steps[step - 1][value];
      steps[step][value] = steps[0][crc & 255] ^ (crc >> 8);
    }
  }
  fill_shift(after_one_lane, lane_bytes);
  fill_shift(after_two_lanes, 2 * lane_bytes);
  has_instruction = detect_instruction();
}

bool checksums_crc32c_has_instruction(void) { return has_instruction; }

uint32_t checksums_crc32c_tables(uint32_t seed, const void *bytes, size_t count) {
  const uint8_t *next = bytes;
  uint32_t crc = ~seed;
  for (; count >= 8; count -= 8, next += 8) {
    uint32_t low, high;
    memcpy(&low, next, 4);
    memcpy(&high, next + 4, 4);
    low ^= crc;
    crc = steps[7][low & 255] ^ steps[6][(low >> 8) & 255] ^ steps[5][(low >> 16) & 255] ^
          steps[4][low >> 24] ^ steps[3][high & 255] ^ steps[2][(high >> 8) & 255] ^
          steps[1][(high >> 16) & 255] ^ steps[0][high >> 24];
  }
  while (count-- > 0) crc = steps[0][(crc ^ *next++) & 255] ^ (crc >> 8);
  return ~crc;
}

#if HAS_INSTRUCTION_CODE
static uint32_t shifted(uint32_t table[4][256], uint32_t crc) {
  return table[0][crc & 255] ^ table[1][(crc >> 8) & 255] ^ table[2][(crc >> 16) & 255] ^
         table[3][crc >> 24];
}

INSTRUCTION_TARGET static uint32_t by_instruction(
    uint32_t seed, const uint8_t *next, size_t count) {
  uint64_t crc = (uint32_t)~seed;
  uint64_t word;
  while (count >= 3 * lane_bytes) {
    uint64_t second = 0, third = 0;
    for (size_t offset = 0; offset < lane_bytes; offset += 8) {
      memcpy(&word, next + offset, 8);
      crc = CRC_8(crc, word);
      memcpy(&word, next + lane_bytes + offset, 8);
      second = CRC_8(second, word);
      memcpy(&word, next + 2 * lane_bytes + offset, 8);
      third = CRC_8(third, word);
    }
    crc = shifted(after_two_lanes, (uint32_t)crc) ^ shifted(after_one_lane, (uint32_t)second) ^
          (uint32_t)third;
    next += 3 * lane_bytes;
    count -= 3 * lane_bytes;
  }
  for (; count >= 8; count -= 8, next += 8) {
    memcpy(&word, next, 8);
    crc = CRC_8(crc, word);
  }
  while (count-- > 0) crc = CRC_1(crc, *next++);
  return ~(uint32_t)crc;
}
#endif

uint32_t checksums_crc32c(uint32_t seed, const void *bytes, size_t count) {
#if HAS_INSTRUCTION_CODE
  if (has_instruction) return by_instruction(seed, bytes, count);
#endif
  return checksums_crc32c_tables(seed, bytes, count);
}
