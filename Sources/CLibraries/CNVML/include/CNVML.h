// NVIDIA's management library, loaded when it is asked for: a host without it needs nothing.
//
// The functions and layouts are those of NVML's documented C interface (nvml.h), as far as they are
// used here.
#ifndef CNVML_H
#define CNVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Return codes of NVML.
enum {
  CNVML_SUCCESS = 0,
  CNVML_NOT_SUPPORTED = 3,
  CNVML_TIMEOUT = 10,
  CNVML_GPU_IS_LOST = 15,
  CNVML_RESET_REQUIRED = 16,
  // Of this file: the library, or a function of it, is not there.
  CNVML_LIBRARY_MISSING = -1,
  CNVML_FUNCTION_MISSING = -2,
};

// Reasons of slow clocks, of NVML.
enum {
  CNVML_SLOWDOWN_POWER_CAP = 0x4,
  CNVML_SLOWDOWN_HARDWARE = 0x8,
  CNVML_SLOWDOWN_SOFTWARE_THERMAL = 0x20,
  CNVML_SLOWDOWN_HARDWARE_THERMAL = 0x40,
  CNVML_SLOWDOWN_POWER_BRAKE = 0x80,
};

typedef struct cnvml_library cnvml_library;

// What one device says; what it does not say is -1, or 0 for counts.
typedef struct cnvml_reading {
  // CNVML_SUCCESS, or the first code that says that the device is gone or needs a reset.
  int32_t state;
  char bus_id[32];
  char name[96];
  uint64_t total_memory_bytes;
  uint64_t free_memory_bytes;
  int32_t busy_percent;
  int32_t temperature_celsius;
  int32_t slowdown_celsius;
  int32_t shutdown_celsius;
  int64_t power_milliwatts;
  uint64_t slowdown_reasons;
  uint64_t corrected_errors;
  uint64_t uncorrected_errors;
  bool is_remapping_pending;
  bool has_remapping_failed;
} cnvml_reading;

// Loads the library and begins; *library stays null unless the result is CNVML_SUCCESS.
int32_t cnvml_open(const char *path, cnvml_library **library);
void cnvml_close(cnvml_library *library);
int32_t cnvml_count(cnvml_library *library, uint32_t *count);
int32_t cnvml_read(cnvml_library *library, uint32_t index, cnvml_reading *reading);
// The next critical error (XID) that has come since the last call, without waiting; CNVML_TIMEOUT
// if there is none.
int32_t cnvml_next_error(cnvml_library *library, char bus_id[32], uint64_t *number);
// Text of a return code; lives as long as the library.
const char *cnvml_text(cnvml_library *library, int32_t code);

#endif
