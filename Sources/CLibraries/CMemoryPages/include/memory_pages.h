#pragma once
#include <stddef.h>

// Pages are zeroed when they are touched first, which costs as much as encrypting them. Here that
// happens at a time of one's own choice, with huge pages where the system gives them.

// Makes writable memory resident. What it holds is lost.
//
// Gives 0, or -errno if the system could not provide the pages (memory of a file only).
int memory_pages_fill(void *_Nonnull start, size_t bytes);

// Makes a read-only mapping resident. Gives 0 or -errno.
int memory_pages_read(const void *_Nonnull start, size_t bytes);
