#define _GNU_SOURCE
#include "shared_memory.h"

#include <errno.h>

#if defined(__linux__)
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "memory_pages.h"

// Newer than some C libraries: Linux 5.1 and 6.3.
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum { needed_seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE };

static int make_file(void) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int file = memfd_create("pdserve-kv", flags | MFD_NOEXEC_SEAL);
  if (file < 0 && errno == EINVAL) file = memfd_create("pdserve-kv", flags);
  return file < 0 ? -errno : file;
}

static int size_and_map(int file, size_t bytes, void **start) {
  if (ftruncate(file, (off_t)bytes) != 0) return -errno;
  void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapping == MAP_FAILED) return -errno;
  int code = memory_pages_fill(mapping, bytes);
  if (code == 0 && fcntl(file, F_ADD_SEALS, needed_seals | F_SEAL_SEAL) != 0) code = -errno;
  if (code == 0)
    *start = mapping;
  else
    munmap(mapping, bytes);
  return code;
}

int shared_memory_create(size_t bytes, void **start) {
  int file = make_file();
  if (file < 0) return file;
  int code = size_and_map(file, bytes, start);
  if (code == 0) return file;
  close(file);
  return code;
}

int shared_memory_inspect(int file, shared_memory_facts *facts) {
  struct stat status;
  struct statfs system;
  *facts = (shared_memory_facts){0};
  if (fstat(file, &status) != 0) return -errno;
  if (!S_ISREG(status.st_mode)) return 0;
  if (fstatfs(file, &system) != 0) return -errno;
  // A memory file of reserved huge pages is refused, too: reading it can end the process.
  int seals = system.f_type == TMPFS_MAGIC ? fcntl(file, F_GET_SEALS) : -1;
  // An ordinary file of such a file system can't be sealed, which is a seal as well.
  facts->is_memory_file = seals >= 0 && seals != F_SEAL_SEAL;
  facts->is_sealed = seals >= 0 && (seals & needed_seals) == needed_seals;
  facts->bytes = (uint64_t)status.st_size;
  facts->device = (uint64_t)status.st_dev;
  facts->inode = (uint64_t)status.st_ino;
  return 0;
}

int shared_memory_map(int file, size_t bytes, const void **start) {
  void *mapping = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, 0);
  if (mapping == MAP_FAILED) return -errno;
  *start = mapping;
  return 0;
}

int shared_memory_provide(const void *start, size_t bytes) {
  return memory_pages_read(start, bytes);
}

void shared_memory_unmap(const void *start, size_t bytes) { munmap((void *)start, bytes); }

#else

int shared_memory_create(size_t bytes, void **start) {
  (void)bytes, (void)start;
  return -ENOTSUP;
}

int shared_memory_inspect(int file, shared_memory_facts *facts) {
  (void)file, (void)facts;
  return -ENOTSUP;
}

int shared_memory_map(int file, size_t bytes, const void **start) {
  (void)file, (void)bytes, (void)start;
  return -ENOTSUP;
}

int shared_memory_provide(const void *start, size_t bytes) {
  (void)start, (void)bytes;
  return -ENOTSUP;
}

void shared_memory_unmap(const void *start, size_t bytes) { (void)start, (void)bytes; }

#endif
