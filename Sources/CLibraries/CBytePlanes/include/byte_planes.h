#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes of even index go to `low`, those of odd index to `high`; each gets `pairs` bytes.
void byte_planes_split(
    const uint8_t *_Nonnull bytes, size_t pairs, uint8_t *_Nonnull low, uint8_t *_Nonnull high);

// The reverse: writes 2 * `pairs` bytes.
void byte_planes_merge(
    const uint8_t *_Nonnull low, const uint8_t *_Nonnull high, size_t pairs,
    uint8_t *_Nonnull bytes);

// Whether this processor has the vector instructions.
bool byte_planes_has_vectors(void);

// The same without vector instructions: what other processors run.
void byte_planes_split_plain(
    const uint8_t *_Nonnull bytes, size_t pairs, uint8_t *_Nonnull low, uint8_t *_Nonnull high);
void byte_planes_merge_plain(
    const uint8_t *_Nonnull low, const uint8_t *_Nonnull high, size_t pairs,
    uint8_t *_Nonnull bytes);
