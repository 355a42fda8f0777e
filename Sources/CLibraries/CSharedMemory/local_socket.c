#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "shared_memory.h"

#if defined(__linux__)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

size_t local_socket_path_limit(void) { return sizeof(((struct sockaddr_un *)0)->sun_path) - 1; }

static int set_address(const char *path, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (strlen(path) > local_socket_path_limit()) return -ENAMETOOLONG;
  memcpy(address->sun_path, path, strlen(path));
  return 0;
}

static int make_socket(void) {
  int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return file < 0 ? -errno : file;
}

static int failed(int file) {
  int code = -errno;
  close(file);
  return code;
}

int local_socket_listen(const char *path, int backlog) {
  struct sockaddr_un address;
  int code = set_address(path, &address);
  if (code != 0) return code;
  int file = make_socket();
  if (file < 0) return file;
  // Of a socket that has no name yet: the name gets this mode.
  if (fchmod(file, 0600) != 0) return failed(file);
  if (bind(file, (struct sockaddr *)&address, sizeof address) != 0) return failed(file);
  if (listen(file, backlog) != 0) return failed(file);
  return file;
}

int local_socket_connect(const char *path) {
  struct sockaddr_un address;
  int code = set_address(path, &address);
  if (code != 0) return code;
  int file = make_socket();
  if (file < 0) return file;
  if (connect(file, (struct sockaddr *)&address, sizeof address) != 0) return failed(file);
  return file;
}

int local_socket_accept(int listener) {
  int file = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  return file < 0 ? -errno : file;
}

int local_socket_user(int socket, uint32_t *user) {
  struct ucred credentials;
  socklen_t length = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return -errno;
  *user = credentials.uid;
  return 0;
}

// Room for descriptors beside a message, aligned as the headers in it are.
typedef union {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(LOCAL_SOCKET_FILES * sizeof(int))];
} received_files;

typedef union {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(4 * LOCAL_SOCKET_FILES * sizeof(int))];
} sent_files;

ptrdiff_t local_socket_send(
    int socket, const void *bytes, size_t count, const int *files, size_t file_count) {
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  sent_files beside = {0};
  if (file_count > 4 * LOCAL_SOCKET_FILES) return -EINVAL;
  if (file_count > 0) {
    message.msg_control = &beside;
    message.msg_controllen = CMSG_SPACE(file_count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(file_count * sizeof(int));
    memcpy(CMSG_DATA(header), files, file_count * sizeof(int));
  }
  ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent < 0 ? -errno : sent;
}

ptrdiff_t local_socket_receive(
    int socket, void *bytes, size_t count, local_socket_files *files) {
  struct iovec part = {.iov_base = bytes, .iov_len = count};
  received_files beside = {0};
  struct msghdr message = {
      .msg_iov = &part,
      .msg_iovlen = 1,
      .msg_control = &beside,
      .msg_controllen = sizeof beside};
  *files = (local_socket_files){0};
  ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (received < 0) return -errno;
  files->lost_files = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < here; index++) {
      int file;
      memcpy(&file, CMSG_DATA(header) + index * sizeof(int), sizeof file);
      if (files->file_count < LOCAL_SOCKET_FILES) {
        files->files[files->file_count++] = file;
      } else {
        close(file);
        files->lost_files = true;
      }
    }
  }
  return received;
}

// Each one is lost only to a process that ended in this very moment.
enum { lock_attempts = 16 };

int local_lock_take(const char *path) {
  for (int attempt = 0; attempt < lock_attempts; attempt++) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) return -errno;
    if (flock(file, LOCK_EX | LOCK_NB) != 0) return failed(file);
    // Its holder may have removed it while this call waited at the door of the old one.
    struct stat held, named;
    if (fstat(file, &held) != 0) return failed(file);
    if (stat(path, &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev)
      return file;
    close(file);
  }
  return -EWOULDBLOCK;
}

int local_socket_remove(const char *path) {
  struct stat status;
  if (lstat(path, &status) != 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(status.st_mode)) return -EEXIST;
  return unlink(path) == 0 || errno == ENOENT ? 0 : -errno;
}

int local_folder_prepare(const char *path) {
  struct stat status;
  if (mkdir(path, 0700) != 0 && errno != EEXIST) return -errno;
  if (stat(path, &status) != 0) return -errno;
  if (!S_ISDIR(status.st_mode)) return -ENOTDIR;
  bool is_ours = status.st_uid == geteuid() || status.st_uid == 0;
  bool is_shared = (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
  return is_ours && (!is_shared || (status.st_mode & S_ISVTX) != 0) ? 0 : -EPERM;
}

#else

size_t local_socket_path_limit(void) { return 0; }

int local_socket_listen(const char *path, int backlog) {
  (void)path, (void)backlog;
  return -ENOTSUP;
}

int local_socket_connect(const char *path) {
  (void)path;
  return -ENOTSUP;
}

int local_socket_accept(int listener) {
  (void)listener;
  return -ENOTSUP;
}

int local_socket_user(int socket, uint32_t *user) {
  (void)socket, (void)user;
  return -ENOTSUP;
}

ptrdiff_t local_socket_send(
    int socket, const void *bytes, size_t count, const int *files, size_t file_count) {
  (void)socket, (void)bytes, (void)count, (void)files, (void)file_count;
  return -ENOTSUP;
}

ptrdiff_t local_socket_receive(
    int socket, void *bytes, size_t count, local_socket_files *files) {
  (void)socket, (void)bytes, (void)count, (void)files;
  return -ENOTSUP;
}

int local_lock_take(const char *path) {
  (void)path;
  return -ENOTSUP;
}

int local_socket_remove(const char *path) {
  (void)path;
  return -ENOTSUP;
}

int local_folder_prepare(const char *path) {
  (void)path;
  return -ENOTSUP;
}

#endif
