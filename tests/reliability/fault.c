// Preloaded: the FAULT_NUMBER-th call (from 1) of the function that FAULT names fails with ENOSPC. Only writes to files count, not
// those to terminals and pipes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_int calls;

static int fails(const char* function) {
  const char *wanted = getenv("FAULT"), *number = getenv("FAULT_NUMBER");
  if (wanted == NULL || number == NULL || strcmp(wanted, function) != 0) return 0;
  if (atomic_fetch_add(&calls, 1) + 1 != atoi(number)) return 0;
  errno = ENOSPC;
  return 1;
}

ssize_t write(int file, const void* data, size_t size) {
  static ssize_t (*real)(int, const void*, size_t);
  struct stat what;
  if (real == NULL) real = (ssize_t(*)(int, const void*, size_t))dlsym(RTLD_NEXT, "write");
  if (file > 2 && fstat(file, &what) == 0 && S_ISREG(what.st_mode) && fails("write")) return -1;
  return real(file, data, size);
}

int fsync(int file) {
  static int (*real)(int);
  if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  return fails("fsync") ? -1 : real(file);
}

int rename(const char* from, const char* to) {
  static int (*real)(const char*, const char*);
  if (real == NULL) real = (int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename");
  return fails("rename") ? -1 : real(from, to);
}
