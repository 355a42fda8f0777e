// Functions of NVML that answer from a file, for tests of how the library is loaded and asked.
//
// Lines of $NVML_RECORDED, one a device: address, name, state, memory total and free in MiB, busy,
// degrees, slowdown and shutdown degrees, milliwatts, slowdown reasons, corrected and uncorrected
// errors, pending and failed remapping, XID (0: none). A state that is not 0 is what each call
// about the device gives.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct device {
  char address[32], name[64];
  int state;
  unsigned long long total, free_, reasons, corrected, uncorrected, xid;
  unsigned busy, degrees, slowdown, shutdown, milliwatts, pending, failed;
};

static struct device devices[16];
static unsigned count;
static unsigned reported;

static void load(void) {
  FILE *file = fopen(getenv("NVML_RECORDED"), "r");
  count = 0;
  if (!file) return;
  while (count < 16) {
    struct device *d = &devices[count];
    if (fscanf(file, "%31s %63s %d %llu %llu %u %u %u %u %u %llu %llu %llu %u %u %llu", d->address,
               d->name, &d->state, &d->total, &d->free_, &d->busy, &d->degrees, &d->slowdown,
               &d->shutdown, &d->milliwatts, &d->reasons, &d->corrected, &d->uncorrected,
               &d->pending, &d->failed, &d->xid) != 16)
      break;
    count++;
  }
  fclose(file);
}

int nvmlInit_v2(void) { reported = 0; load(); return getenv("NVML_BROKEN") ? 9 : 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *result) { load(); *result = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (index >= count) return 2;
  *device = &devices[index];
  return devices[index].state == 15 && devices[index].total == 0 ? 15 : 0;
}
#define ASKED(type) struct device *d = device; if (d->state) return d->state;
int nvmlDeviceGetName(void *device, char *name, unsigned size) {
  ASKED(d) snprintf(name, size, "%s", d->name); return 0;
}
int nvmlDeviceGetPciInfo_v3(void *device, void *info) {
  // 16 bytes of an older address and five numbers come first.
  strcpy((char *)info + 36, ((struct device *)device)->address); return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
  ASKED(d) memory[0] = d->total << 20; memory[1] = d->free_ << 20;
  memory[2] = memory[0] - memory[1]; return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
  ASKED(d) rates[0] = d->busy; rates[1] = 0; return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) {
  ASKED(d) if (sensor != 0) return 2; *degrees = d->degrees; return 0;
}
int nvmlDeviceGetTemperatureThreshold(void *device, int kind, unsigned *degrees) {
  ASKED(d) if (kind > 1) return 2; *degrees = kind == 0 ? d->shutdown : d->slowdown; return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
  ASKED(d) *milliwatts = d->milliwatts; return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
  ASKED(d) *reasons = d->reasons; return 0;
}
int nvmlDeviceGetTotalEccErrors(void *device, int kind, int counter, unsigned long long *errors) {
  ASKED(d) if (counter != 0) return 2; *errors = kind == 0 ? d->corrected : d->uncorrected;
  return 0;
}
int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed) {
  ASKED(d) *corrected = *uncorrected = 0; *pending = d->pending; *failed = d->failed; return 0;
}
int nvmlEventSetCreate(void **set) { *set = &reported; return 0; }
int nvmlEventSetFree(void *set) { return set ? 0 : 2; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
  return device && set && types == 8 ? 0 : 2;
}
struct event { void *device; unsigned long long type, data; unsigned instance, part; };
int nvmlEventSetWait_v2(void *set, struct event *event, unsigned milliseconds) {
  if (!set || milliseconds) return 2;
  for (unsigned i = 0; i < count; i++)
    if (devices[i].xid && !(reported & 1u << i)) {
      reported |= 1u << i;
      *event = (struct event){&devices[i], 8, devices[i].xid, 0, 0};
      return 0;
    }
  return 10;
}
