#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `count` bytes. `seed` is the checksum of what
// comes before them, 0 at the start. Uses the processor's instruction where it has one.
uint32_t checksums_crc32c(uint32_t seed, const void *_Nullable bytes, size_t count);

// The same by tables alone: what processors without the instruction run.
uint32_t checksums_crc32c_tables(uint32_t seed, const void *_Nullable bytes, size_t count);

// Whether this processor has the instruction.
bool checksums_crc32c_has_instruction(void);
