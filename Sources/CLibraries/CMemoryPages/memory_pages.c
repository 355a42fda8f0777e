#define _GNU_SOURCE
#include "memory_pages.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

// Names of Linux 5.14; older kernels answer EINVAL.
#define POPULATE_READ 22
#define POPULATE_WRITE 23
// Of most processors; below it huge pages are no gain.
#define HUGE_PAGE ((size_t)2 << 20)

static size_t page_size(void) {
  long size = sysconf(_SC_PAGESIZE);
  return size > 0 ? (size_t)size : 4096;
}

#if defined(__linux__)
// 1 if the system did it, 0 if it can't, -errno if there is no memory for it.
static int populate(const void *start, size_t bytes, int advice) {
  uintptr_t page = page_size();
  uintptr_t first = (uintptr_t)start & ~(page - 1);
  size_t length = (uintptr_t)start + bytes - first;
  // Only a wish: where there are no huge pages, small ones do.
  if (bytes >= HUGE_PAGE) (void)madvise((void *)first, length, MADV_HUGEPAGE);
  while (madvise((void *)first, length, advice) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    return errno == ENOMEM || errno == EFAULT || errno == EHWPOISON ? -errno : 0;
  }
  return 1;
}
#else
static int populate(const void *start, size_t bytes, int advice) {
  (void)start, (void)bytes, (void)advice;
  return 0;
}
#endif

int memory_pages_fill(void *start, size_t bytes) {
  if (bytes == 0) return 0;
  int result = populate(start, bytes, POPULATE_WRITE);
  if (result != 0) return result < 0 ? result : 0;
  size_t page = page_size();
  for (size_t offset = 0; offset < bytes; offset += page) ((volatile char *)start)[offset] = 0;
  return 0;
}

int memory_pages_read(const void *start, size_t bytes) {
  if (bytes == 0) return 0;
  int result = populate(start, bytes, POPULATE_READ);
  if (result != 0) return result < 0 ? result : 0;
  size_t page = page_size();
  for (size_t offset = 0; offset < bytes; offset += page)
    (void)((const volatile char *)start)[offset];
  return 0;
}
