#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Sealed memory files and the unix sockets that carry their descriptors. Linux only; elsewhere
// every call gives -ENOTSUP. A negative result is -errno. Sockets are non-blocking and all
// descriptors close on exec.

// Makes a memory file of this size, maps it for writing, provides its pages, and seals it: neither
// size nor bytes can be changed through the descriptor any more, only through this mapping.
//
// Gives the descriptor.
int shared_memory_create(size_t bytes, void *_Nullable *_Nonnull start);

// What a descriptor refers to.
typedef struct {
  // A memory file of ordinary pages; nothing else can be mapped without risk.
  bool is_memory_file;
  // Nobody can shrink, grow or write it but through mappings that exist already; no seal can be
  // taken off again.
  bool is_sealed;
  uint64_t bytes;
  // No other file has both as long as this one is open or mapped somewhere.
  uint64_t device, inode;
} shared_memory_facts;

int shared_memory_inspect(int file, shared_memory_facts *_Nonnull facts);

// Maps the first bytes for reading.
int shared_memory_map(int file, size_t bytes, const void *_Nullable *_Nonnull start);

// Provides the pages of a part of such a mapping.
int shared_memory_provide(const void *_Nonnull start, size_t bytes);

void shared_memory_unmap(const void *_Nonnull start, size_t bytes);

// Bytes a socket's path may have.
size_t local_socket_path_limit(void);

// Binds and listens; only this user may connect. Gives the socket.
int local_socket_listen(const char *_Nonnull path, int backlog);

// Gives the socket; -EAGAIN if the listener's queue is full.
int local_socket_connect(const char *_Nonnull path);

// Gives the connection.
int local_socket_accept(int listener);

// The user that the other process had when it connected or began to listen.
int local_socket_user(int socket, uint32_t *_Nonnull user);

// Most descriptors that one call hands out; one call sends up to four times as many.
enum { LOCAL_SOCKET_FILES = 4 };

// Sends bytes, and with the first one the descriptors. Gives how many bytes went, at least one.
ptrdiff_t local_socket_send(
    int socket, const void *_Nonnull bytes, size_t count, const int *_Nullable files,
    size_t file_count);

typedef struct {
  // The caller closes them.
  int files[LOCAL_SOCKET_FILES];
  size_t file_count;
  // Descriptors were lost: too many, or no room in this process's table.
  bool lost_files;
} local_socket_files;

// Receives bytes and the descriptors that came with them. Gives how many bytes came; 0 is the end.
ptrdiff_t local_socket_receive(
    int socket, void *_Nonnull bytes, size_t count, local_socket_files *_Nonnull files);

// Takes the file at a path as a lock, and makes it if need be. Gives the descriptor that holds the
// lock; -EWOULDBLOCK if another one does.
int local_lock_take(const char *_Nonnull path);

// Removes a file if it is a socket; -EEXIST if it is something else.
int local_socket_remove(const char *_Nonnull path);

// Makes a folder that only this user can enter, or checks the one that is there: -EPERM if others
// could change names in it, -ENOTDIR if it is no folder.
int local_folder_prepare(const char *_Nonnull path);
