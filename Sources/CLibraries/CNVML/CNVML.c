#include "CNVML.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef void *device_handle;
typedef void *event_set;

typedef struct {
  char legacy_bus_id[16];
  unsigned int domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
} pci_info;

typedef struct {
  unsigned long long total, free, used;
} memory_info;

typedef struct {
  unsigned int gpu, memory;
} utilization;

typedef struct {
  device_handle device;
  unsigned long long type, data;
  unsigned int gpu_instance, compute_instance;
} event_data;

enum { temperature_gpu = 0, threshold_shutdown = 0, threshold_slowdown = 1 };
enum { errors_corrected = 0, errors_uncorrected = 1, counter_volatile = 0 };
enum { event_xid = 0x8 };

struct cnvml_library {
  void *handle;
  event_set events;
  bool has_begun;
  int (*shutdown)(void);
  const char *(*error_string)(int);
  int (*get_count)(unsigned int *);
  int (*get_handle)(unsigned int, device_handle *);
  int (*get_name)(device_handle, char *, unsigned int);
  int (*get_pci)(device_handle, pci_info *);
  int (*get_memory)(device_handle, memory_info *);
  int (*get_utilization)(device_handle, utilization *);
  int (*get_temperature)(device_handle, int, unsigned int *);
  int (*get_threshold)(device_handle, int, unsigned int *);
  int (*get_power)(device_handle, unsigned int *);
  int (*get_slowdown)(device_handle, unsigned long long *);
  int (*get_errors)(device_handle, int, int, unsigned long long *);
  int (*get_remapped)(device_handle, unsigned int *, unsigned int *, unsigned int *,
                      unsigned int *);
  int (*event_create)(event_set *);
  int (*event_register)(device_handle, unsigned long long, event_set);
  int (*event_wait)(event_set, event_data *, unsigned int);
  int (*event_free)(event_set);
};

// POSIX lets a pointer of dlsym be used as a function.
#define LOAD(field, symbol) (*(void **)(&library->field) = dlsym(library->handle, symbol))

static void listen_for_errors(cnvml_library *library) {
  if (!library->event_create || !library->event_register || !library->event_wait ||
      !library->event_free || library->event_create(&library->events) != CNVML_SUCCESS) {
    library->events = NULL;
    return;
  }
  unsigned int count = 0;
  if (library->get_count(&count) != CNVML_SUCCESS) return;
  for (unsigned int index = 0; index < count; index++) {
    device_handle device;
    if (library->get_handle(index, &device) == CNVML_SUCCESS)
      library->event_register(device, event_xid, library->events);
  }
}

int32_t cnvml_open(const char *path, cnvml_library **result) {
  *result = NULL;
  cnvml_library *library = calloc(1, sizeof *library);
  if (!library) return CNVML_LIBRARY_MISSING;
  library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library->handle) {
    free(library);
    return CNVML_LIBRARY_MISSING;
  }
  int (*begin)(void) = NULL;
  *(void **)(&begin) = dlsym(library->handle, "nvmlInit_v2");
  LOAD(shutdown, "nvmlShutdown");
  LOAD(error_string, "nvmlErrorString");
  LOAD(get_count, "nvmlDeviceGetCount_v2");
  LOAD(get_handle, "nvmlDeviceGetHandleByIndex_v2");
  LOAD(get_name, "nvmlDeviceGetName");
  if (!LOAD(get_pci, "nvmlDeviceGetPciInfo_v3")) LOAD(get_pci, "nvmlDeviceGetPciInfo_v2");
  LOAD(get_memory, "nvmlDeviceGetMemoryInfo");
  LOAD(get_utilization, "nvmlDeviceGetUtilizationRates");
  LOAD(get_temperature, "nvmlDeviceGetTemperature");
  LOAD(get_threshold, "nvmlDeviceGetTemperatureThreshold");
  LOAD(get_power, "nvmlDeviceGetPowerUsage");
  LOAD(get_slowdown, "nvmlDeviceGetCurrentClocksThrottleReasons");
  LOAD(get_errors, "nvmlDeviceGetTotalEccErrors");
  LOAD(get_remapped, "nvmlDeviceGetRemappedRows");
  LOAD(event_create, "nvmlEventSetCreate");
  LOAD(event_register, "nvmlDeviceRegisterEvents");
  LOAD(event_wait, "nvmlEventSetWait_v2");
  LOAD(event_free, "nvmlEventSetFree");
  int32_t code = CNVML_FUNCTION_MISSING;
  if (begin && library->shutdown && library->error_string && library->get_count &&
      library->get_handle && library->get_name && library->get_pci && library->get_memory)
    code = begin();
  if (code != CNVML_SUCCESS) {
    cnvml_close(library);
    return code;
  }
  library->has_begun = true;
  listen_for_errors(library);
  *result = library;
  return CNVML_SUCCESS;
}

void cnvml_close(cnvml_library *library) {
  if (!library) return;
  if (library->events) library->event_free(library->events);
  if (library->has_begun) library->shutdown();
  dlclose(library->handle);
  free(library);
}

int32_t cnvml_count(cnvml_library *library, uint32_t *count) {
  unsigned int found = 0;
  int code = library->get_count(&found);
  *count = found;
  return code;
}

static void note(cnvml_reading *reading, int code) {
  if (reading->state == CNVML_SUCCESS &&
      (code == CNVML_GPU_IS_LOST || code == CNVML_RESET_REQUIRED))
    reading->state = code;
}

static void read_rest(cnvml_library *library, device_handle device, cnvml_reading *reading) {
  utilization used;
  unsigned int number = 0;
  unsigned long long count = 0;
  int code;
#define ASK(function, ...) \
  (library->function && (code = library->function(device, __VA_ARGS__), note(reading, code), \
                         code == CNVML_SUCCESS))
  if (ASK(get_utilization, &used)) reading->busy_percent = (int32_t)used.gpu;
  if (ASK(get_temperature, temperature_gpu, &number))
    reading->temperature_celsius = (int32_t)number;
  if (ASK(get_threshold, threshold_slowdown, &number)) reading->slowdown_celsius = (int32_t)number;
  if (ASK(get_threshold, threshold_shutdown, &number)) reading->shutdown_celsius = (int32_t)number;
  if (ASK(get_power, &number)) reading->power_milliwatts = number;
  if (ASK(get_slowdown, &count)) reading->slowdown_reasons = count;
  if (ASK(get_errors, errors_corrected, counter_volatile, &count))
    reading->corrected_errors = count;
  if (ASK(get_errors, errors_uncorrected, counter_volatile, &count))
    reading->uncorrected_errors = count;
  unsigned int corrected = 0, uncorrected = 0, pending = 0, failed = 0;
  if (ASK(get_remapped, &corrected, &uncorrected, &pending, &failed)) {
    reading->is_remapping_pending = pending != 0;
    reading->has_remapping_failed = failed != 0;
  }
#undef ASK
}

int32_t cnvml_read(cnvml_library *library, uint32_t index, cnvml_reading *reading) {
  memset(reading, 0, sizeof *reading);
  reading->busy_percent = reading->temperature_celsius = -1;
  reading->slowdown_celsius = reading->shutdown_celsius = -1;
  reading->power_milliwatts = -1;
  device_handle device;
  int code = library->get_handle(index, &device);
  if (code != CNVML_SUCCESS) return code;
  pci_info pci;
  memset(&pci, 0, sizeof pci);
  code = library->get_pci(device, &pci);
  note(reading, code);
  memcpy(reading->bus_id, pci.bus_id, sizeof reading->bus_id - 1);
  note(reading, library->get_name(device, reading->name, sizeof reading->name));
  reading->name[sizeof reading->name - 1] = 0;
  memory_info memory;
  memset(&memory, 0, sizeof memory);
  note(reading, library->get_memory(device, &memory));
  reading->total_memory_bytes = memory.total;
  reading->free_memory_bytes = memory.free;
  read_rest(library, device, reading);
  return CNVML_SUCCESS;
}

int32_t cnvml_next_error(cnvml_library *library, char bus_id[32], uint64_t *number) {
  if (!library->events) return CNVML_TIMEOUT;
  event_data event;
  memset(&event, 0, sizeof event);
  int code = library->event_wait(library->events, &event, 0);
  if (code != CNVML_SUCCESS) return code;
  pci_info pci;
  memset(&pci, 0, sizeof pci);
  library->get_pci(event.device, &pci);
  memcpy(bus_id, pci.bus_id, 31);
  bus_id[31] = 0;
  *number = event.data;
  return CNVML_SUCCESS;
}

const char *cnvml_text(cnvml_library *library, int32_t code) {
  return library->error_string(code);
}
