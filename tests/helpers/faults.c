/* Makes system calls on the files below a folder fail, as disks and file systems do that are not at hand.

   To be preloaded (LD_PRELOAD) into a process that then calls `faults`; see faults.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ = 1, WRITE = 2, SYNC = 4, SYNC_FOLDER = 8, LOCK = 16, RESERVE = 32, TRUNCATE = 64, OPEN = 128, NAME = 256, THREAD = 512 };
enum { EVERY = -1, SECOND = -2, SHORT = -3 };

static char folder[PATH_MAX];
static int calls, error;
static long which;
static atomic_long count, fired;

/* calls: a sum of the constants above. which: the number of the call that fails, from 1; or EVERY one, or each SECOND
   one; or none, but each is SHORT: it reads or writes only half. */
void faults(const char *below, int of, int number, long when) {
    snprintf(folder, sizeof folder, "%s", below);
    calls = of, error = number, which = when;
    atomic_store(&count, 0), atomic_store(&fired, 0);
}

long faults_fired(void) { return atomic_load(&fired); }

static int below(const char *path) { return *folder && !strncmp(path, folder, strlen(folder)); }

static int fails(int call, const char *path) {
    if (!(calls & call) || which == SHORT || !below(path)) return 0;
    long now = atomic_fetch_add(&count, 1) + 1;
    if (which != EVERY && !(which == SECOND && now % 2 == 1) && now != which) return 0;
    atomic_fetch_add(&fired, 1);
    errno = error;
    return 1;
}

static const char *name(int file, char *path) {
    char link[64];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    errno = before;
    return path;
}

static int open_fails(int call, int file) {
    char path[PATH_MAX];
    return calls & call && fails(call, name(file, path));
}

static size_t part(int call, int file, size_t size) {
    char path[PATH_MAX];
    if (!(calls & call) || which != SHORT || size < 2 || !below(name(file, path))) return size;
    atomic_fetch_add(&fired, 1);
    return size / 2;
}

#define REAL(result, call, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, call)

#define TRANSFER(result, call, kind, buffer, tail, ...) \
    result call(int file, buffer data, size_t size tail) { \
        REAL(result, #call, int, buffer, size_t tail); \
        if (open_fails(kind, file)) return -1; \
        return real(file, data, part(kind, file, size) __VA_ARGS__); \
    }
#define COMMA ,
TRANSFER(ssize_t, read, READ, void *, )
TRANSFER(ssize_t, write, WRITE, const void *, )

#define POSITIONED(call, kind, buffer) \
    ssize_t call(int file, buffer data, size_t size, off_t at) { \
        REAL(ssize_t, #call, int, buffer, size_t, off_t); \
        if (open_fails(kind, file)) return -1; \
        return real(file, data, part(kind, file, size), at); \
    }
POSITIONED(pread, READ, void *)
POSITIONED(pread64, READ, void *)
POSITIONED(pwrite, WRITE, const void *)
POSITIONED(pwrite64, WRITE, const void *)

static ssize_t gather(int file, const struct iovec *parts, int number, off_t at) {
    if (open_fails(READ, file)) return -1;
    if (number == 1) {
        static ssize_t (*real)(int, void *, size_t, off_t);
        if (!real) real = (ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");
        return real(file, parts->iov_base, part(READ, file, parts->iov_len), at);
    }
    static ssize_t (*all)(int, const struct iovec *, int, off_t);
    if (!all) all = (ssize_t(*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, "preadv64");
    return all(file, parts, number, at);
}
ssize_t preadv(int file, const struct iovec *parts, int number, off_t at) { return gather(file, parts, number, at); }
ssize_t preadv64(int file, const struct iovec *parts, int number, off_t at) { return gather(file, parts, number, at); }
ssize_t preadv2(int file, const struct iovec *parts, int number, off_t at, int flags) {
    return gather(file, parts, number, at);
}
ssize_t preadv64v2(int file, const struct iovec *parts, int number, off_t at, int flags) {
    return gather(file, parts, number, at);
}

static int is_folder(int file) {
    struct stat found;
    return !fstat(file, &found) && S_ISDIR(found.st_mode);
}
int fsync(int file) {
    REAL(int, "fsync", int);
    return open_fails(is_folder(file) ? SYNC_FOLDER : SYNC, file) ? -1 : real(file);
}
int fdatasync(int file) {
    REAL(int, "fdatasync", int);
    return open_fails(SYNC, file) ? -1 : real(file);
}
int flock(int file, int operation) {
    REAL(int, "flock", int, int);
    return open_fails(LOCK, file) ? -1 : real(file, operation);
}

#define RESERVATION(call) \
    int call(int file, off_t at, off_t size) { \
        REAL(int, #call, int, off_t, off_t); \
        return open_fails(RESERVE, file) ? error : real(file, at, size); \
    }
RESERVATION(posix_fallocate)
RESERVATION(posix_fallocate64)

#define TRUNCATION(call) \
    int call(int file, off_t size) { \
        REAL(int, #call, int, off_t); \
        return open_fails(TRUNCATE, file) ? -1 : real(file, size); \
    }
TRUNCATION(ftruncate)
TRUNCATION(ftruncate64)

#define OPENING(call) \
    int call(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        int mode = va_arg(rest, int); \
        va_end(rest); \
        REAL(int, #call, const char *, int, ...); \
        return fails(OPEN, path) ? -1 : real(path, flags, mode); \
    }
OPENING(open)
OPENING(open64)

static const char *joined(int at, const char *path, char *whole) {
    if (*path == '/' || at == AT_FDCWD) return path;
    char parent[PATH_MAX];
    snprintf(whole, PATH_MAX, "%.2000s/%.2000s", name(at, parent), path);
    return whole;
}
#define OPENING_AT(call) \
    int call(int at, const char *path, int flags, ...) { \
        char whole[PATH_MAX]; \
        va_list rest; \
        va_start(rest, flags); \
        int mode = va_arg(rest, int); \
        va_end(rest); \
        REAL(int, #call, int, const char *, int, ...); \
        return calls & OPEN && fails(OPEN, joined(at, path, whole)) ? -1 : real(at, path, flags, mode); \
    }
OPENING_AT(openat)
OPENING_AT(openat64)

int renameat(int from_at, const char *from, int to_at, const char *to) {
    char whole[PATH_MAX];
    REAL(int, "renameat", int, const char *, int, const char *);
    return fails(NAME, joined(from_at, from, whole)) ? -1 : real(from_at, from, to_at, to);
}
int unlinkat(int at, const char *path, int flags) {
    char whole[PATH_MAX];
    REAL(int, "unlinkat", int, const char *, int);
    return fails(NAME, joined(at, path, whole)) ? -1 : real(at, path, flags);
}
int mkdirat(int at, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    REAL(int, "mkdirat", int, const char *, mode_t);
    return fails(NAME, joined(at, path, whole)) ? -1 : real(at, path, mode);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *given) {
    REAL(int, "pthread_create", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return calls & THREAD && fails(THREAD, folder) ? error : real(thread, how, run, given);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return fails(NAME, from) ? -1 : real(from, to);
}
int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    return fails(NAME, path) ? -1 : real(path);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return fails(NAME, path) ? -1 : real(path, mode);
}
int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    return fails(NAME, path) ? -1 : real(path);
}
