/* Library for LD_PRELOAD: records the file operations of one process below one directory, and makes some of them fail.

   PROOF_ROOT     directory whose files are recorded, as an absolute path without symbolic links
   PROOF_LOG      file to which records are appended; see journal.py for their form
   PROOF_CONTROL  file of at least 4096 bytes that is shared with the controlling process; see journal.py for its form

   Only the first process that loads the library is recorded. Its children start without the library. Memory mapped
   files are not recorded: SQLite maps only the index of its log, which it rebuilds after a crash. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, OPEN = 4, UNLINK = 8, READ = 16 };
enum { DESCRIPTORS = 1 << 16 };

struct control {
    volatile int32_t pid;       /* process that is recorded */
    volatile int32_t kinds;     /* kinds of which one call fails; 0: none */
    volatile int32_t error;     /* errno of the failing call; 0: the process is killed instead */
    volatile int32_t repeat;    /* 1: all later calls of these kinds fail, too */
    volatile int64_t countdown; /* number of the call that fails; 1 is the next */
    volatile int64_t failed;    /* calls that failed */
    volatile int64_t calls[8];  /* all calls by kind: 0 for WRITE, 1 for SYNC and so on */
    char failed_path[512];      /* file of the last call that failed */
    char failed_call[32];
};

struct record {
    char type;
    char unused[3];
    uint16_t path, target; /* bytes of two paths that follow */
    uint64_t inode, offset, size, begun;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int record_to = -1;
static struct control *control;
static unsigned char followed[DESCRIPTORS]; /* descriptors of files below the root */

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("PROOF_ROOT"), *records = getenv("PROOF_LOG"), *shared = getenv("PROOF_CONTROL");
    unsetenv("LD_PRELOAD");
    if (!where || !shared) return;
    int file = syscall(SYS_openat, AT_FDCWD, shared, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    struct control *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (page == MAP_FAILED) return;
    if (!__sync_bool_compare_and_swap(&page->pid, 0, getpid())) return;
    if (records) record_to = syscall(SYS_openat, AT_FDCWD, records, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    snprintf(root, sizeof root, "%s", where);
    root_length = strlen(root);
    control = page;
}

static int is_on(void) { return control && control->pid == getpid(); }

/* --- paths and descriptors ---------------------------------------------------------------------------------------- */

/* Write the path to `to`; return whether it is the root or below it. */
static int find(int folder, const char *path, char *to) {
    if (!is_on() || !path) return 0;
    if (path[0] == '/') {
        snprintf(to, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX] = "";
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n <= 0) return 0;
            base[n] = 0;
        }
        if ((size_t)snprintf(to, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    return !strncmp(to, root, root_length) && (to[root_length] == '/' || !to[root_length]);
}

static int is_followed(int fd) { return fd >= 0 && fd < DESCRIPTORS && followed[fd] && is_on(); }

static void name_of(int fd, char *to) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, to, PATH_MAX - 1);
    to[n > 0 ? n : 0] = 0;
}

/* Return whether this call must fail, with errno set. */
static int fails(int kind, const char *call, const char *path, int fd) {
    __sync_fetch_and_add(&control->calls[__builtin_ctz(kind)], 1);
    if (!(control->kinds & kind)) return 0;
    pthread_mutex_lock(&lock);
    int now = 0;
    if (control->kinds & kind) {
        if (control->countdown > 0) control->countdown--;
        if (!control->countdown && (!control->failed || control->repeat)) {
            char name[PATH_MAX] = "";
            if (path) snprintf(name, sizeof name, "%s", path);
            else name_of(fd, name);
            size_t outside = strlen(name) > root_length ? root_length : 0;
            snprintf(control->failed_path, sizeof control->failed_path, "%.500s", name + outside);
            snprintf(control->failed_call, sizeof control->failed_call, "%s", call);
            control->failed++;
            now = 1;
        }
    }
    pthread_mutex_unlock(&lock);
    if (now && !control->error) kill(getpid(), SIGKILL);
    if (now) errno = control->error;
    return now;
}

/* --- records ------------------------------------------------------------------------------------------------------ */

static void put(struct record *one, const char *path, const char *target, const struct iovec *data, int pieces) {
    if (record_to < 0) return;
    one->path = path ? strlen(path) : 0;
    one->target = target ? strlen(target) : 0;
    struct iovec all[3 + 64] = {{one, sizeof *one}, {(void *)path, one->path}, {(void *)target, one->target}};
    int64_t left = one->type == 'W' ? (int64_t)one->size : 0;
    int count = 3;
    for (int i = 0; i < pieces && left > 0 && i < 64; i++, count++) {
        all[count] = data[i];
        if ((int64_t)all[count].iov_len > left) all[count].iov_len = left;
        left -= all[count].iov_len;
    }
    if (syscall(SYS_writev, record_to, all, count) < 0) abort(); /* an incomplete record proves nothing */
}

static void put_path(char type, const char *path, const char *target, uint64_t inode) {
    struct record one = {.type = type, .inode = inode};
    put(&one, path, target, NULL, 0);
}

static void put_size(char type, int fd, uint64_t offset, uint64_t size) {
    struct stat found;
    if (fstat(fd, &found) || !S_ISREG(found.st_mode)) return;
    struct record one = {.type = type, .inode = found.st_ino, .offset = offset, .size = size};
    put(&one, NULL, NULL, NULL, 0);
}

static void put_write(int fd, int64_t offset, int64_t size, const struct iovec *data, int pieces) {
    struct stat found;
    if (size <= 0 || fstat(fd, &found) || !S_ISREG(found.st_mode)) return;
    struct record one = {.type = 'W', .inode = found.st_ino, .offset = offset, .size = size};
    put(&one, NULL, NULL, data, pieces);
}

/* Record bytes that another call than a write has put into the file. */
static void put_copied(int fd, int64_t offset, int64_t size) {
    char *data = size > 0 ? malloc(size) : NULL;
    if (!data) return;
    char name[PATH_MAX];
    name_of(fd, name);
    int reading = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    if (reading >= 0 && syscall(SYS_pread64, reading, data, size, offset) == size) {
        struct iovec all = {data, size};
        put_write(fd, offset, size, &all, 1);
    }
    if (reading >= 0) syscall(SYS_close, reading);
    free(data);
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char name[PATH_MAX];
    if (!find(folder, path, name) || (flags & O_TMPFILE) == O_TMPFILE)
        return syscall(SYS_openat, folder, path, flags, mode);
    if (fails(OPEN, "open", name, -1)) return -1;
    if (!(flags & (O_CREAT | O_TRUNC))) {
        int fd = syscall(SYS_openat, folder, path, flags, mode);
        if (fd >= 0 && fd < DESCRIPTORS) followed[fd] = 1;
        return fd;
    }
    pthread_mutex_lock(&lock);
    struct stat before, after;
    int existed = !fstatat(folder, path, &before, 0);
    int fd = syscall(SYS_openat, folder, path, flags, mode), error = errno;
    if (fd >= 0) {
        if (fd < DESCRIPTORS) followed[fd] = 1;
        if (!fstat(fd, &after) && S_ISREG(after.st_mode)) {
            if (!existed) put_path('C', name, NULL, after.st_ino);
            else if (flags & O_TRUNC) put_size('T', fd, 0, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags) return opened(folder, path, flags | O_LARGEFILE, mode);
}
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (fd >= 0 && fd < DESCRIPTORS) followed[fd] = 0;
    REAL(close);
    return real(fd);
}

static ssize_t write_at(int fd, const struct iovec *data, int pieces, int64_t offset) {
    if (fails(WRITE, "write", NULL, fd)) return -1;
    pthread_mutex_lock(&lock);
    ssize_t n = offset < 0 ? syscall(SYS_writev, fd, data, pieces)
                           : syscall(SYS_pwritev, fd, data, pieces, (long)offset, 0L);
    int error = errno;
    if (n > 0) put_write(fd, offset < 0 ? lseek(fd, 0, SEEK_CUR) - n : offset, n, data, pieces);
    pthread_mutex_unlock(&lock);
    errno = error;
    return n;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!is_followed(fd)) return syscall(SYS_write, fd, data, size);
    struct iovec one = {(void *)data, size};
    return write_at(fd, &one, 1, -1);
}

ssize_t writev(int fd, const struct iovec *data, int pieces) {
    return is_followed(fd) ? write_at(fd, data, pieces, -1) : syscall(SYS_writev, fd, data, pieces);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    if (!is_followed(fd)) return syscall(SYS_pwrite64, fd, data, size, offset);
    struct iovec one = {(void *)data, size};
    return write_at(fd, &one, 1, offset);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t pwritev64(int fd, const struct iovec *data, int pieces, off64_t offset) {
    return is_followed(fd) ? write_at(fd, data, pieces, offset) : syscall(SYS_pwritev, fd, data, pieces, offset, 0L);
}
ssize_t pwritev(int fd, const struct iovec *data, int pieces, off_t offset) {
    return pwritev64(fd, data, pieces, offset);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
    if (!is_followed(to)) return syscall(SYS_sendfile, to, from, offset, size);
    if (fails(WRITE, "sendfile", NULL, to)) return -1;
    pthread_mutex_lock(&lock);
    ssize_t n = syscall(SYS_sendfile, to, from, offset, size);
    int error = errno;
    if (n > 0) put_copied(to, lseek(to, 0, SEEK_CUR) - n, n);
    pthread_mutex_unlock(&lock);
    errno = error;
    return n;
}
ssize_t sendfile(int to, int from, off_t *offset, size_t size) { return sendfile64(to, from, offset, size); }

ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *offset, size_t size, unsigned flags) {
    if (!is_followed(to)) return syscall(SYS_copy_file_range, from, at, to, offset, size, flags);
    errno = ENOSYS; /* callers then copy by other calls */
    return -1;
}

static int resized(char type, int fd, int64_t offset, int64_t size, long call, long mode) {
    if (fails(WRITE, type == 'T' ? "ftruncate" : "fallocate", NULL, fd)) return -1;
    pthread_mutex_lock(&lock);
    int done = type == 'T' ? syscall(call, fd, size) : syscall(call, fd, mode, offset, size), error = errno;
    if (!done) put_size(type, fd, offset, size);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int ftruncate64(int fd, off64_t size) {
    return is_followed(fd) ? resized('T', fd, 0, size, SYS_ftruncate, 0) : syscall(SYS_ftruncate, fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fallocate64(int fd, int mode, off64_t offset, off64_t size) {
    if (!is_followed(fd) || mode) return syscall(SYS_fallocate, fd, mode, offset, size);
    return resized('A', fd, offset, size, SYS_fallocate, mode);
}
int fallocate(int fd, int mode, off_t offset, off_t size) { return fallocate64(fd, mode, offset, size); }
int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    int before = errno, problem = fallocate64(fd, 0, offset, size) ? errno : 0;
    errno = before;
    return problem;
}
int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

ssize_t read(int fd, void *data, size_t size) {
    if (is_followed(fd) && fails(READ, "read", NULL, fd)) return -1;
    REAL(read);
    return real(fd, data, size);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
    if (is_followed(fd) && fails(READ, "pread", NULL, fd)) return -1;
    return syscall(SYS_pread64, fd, data, size, offset);
}
ssize_t pread(int fd, void *data, size_t size, off_t offset) { return pread64(fd, data, size, offset); }

/* --- syncs: what was written before the call is durable after it -------------------------------------------------- */

static int synced(int fd, long call) {
    if (!is_followed(fd)) return syscall(call, fd);
    if (fails(SYNC, "fsync", NULL, fd)) return -1;
    struct stat found;
    char name[PATH_MAX] = "";
    pthread_mutex_lock(&lock);
    struct record one = {.begun = record_to < 0 ? 0 : lseek(record_to, 0, SEEK_END)};
    pthread_mutex_unlock(&lock);
    int done = syscall(call, fd), error = errno;
    if (!done && !fstat(fd, &found)) {
        one.type = S_ISDIR(found.st_mode) ? 'G' : 'F';
        one.inode = found.st_ino;
        if (one.type == 'G') name_of(fd, name);
        pthread_mutex_lock(&lock);
        put(&one, name, NULL, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* --- names -------------------------------------------------------------------------------------------------------- */

static int made(int folder, const char *path, mode_t mode) {
    char name[PATH_MAX];
    if (!find(folder, path, name)) return syscall(SYS_mkdirat, folder, path, mode);
    if (fails(OPEN, "mkdir", name, -1)) return -1;
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_mkdirat, folder, path, mode), error = errno;
    if (!done) put_path('M', name, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return made(folder, path, mode); }

static int removed(int folder, const char *path, int flags) {
    char name[PATH_MAX];
    if (!find(folder, path, name)) return syscall(SYS_unlinkat, folder, path, flags);
    if (fails(UNLINK, flags & AT_REMOVEDIR ? "rmdir" : "unlink", name, -1)) return -1;
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_unlinkat, folder, path, flags), error = errno;
    if (!done) put_path(flags & AT_REMOVEDIR ? 'D' : 'U', name, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int folder, const char *path, int flags) { return removed(folder, path, flags); }
int remove(const char *path) {
    struct stat found;
    return removed(AT_FDCWD, path, !lstat(path, &found) && S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}

static int renamed(int from, const char *path, int to, const char *target, unsigned flags) {
    char name[PATH_MAX], other[PATH_MAX];
    int here = find(from, path, name), there = find(to, target, other);
    if (!here && !there) return syscall(SYS_renameat2, from, path, to, target, flags);
    if (fails(UNLINK, "rename", here ? name : other, -1)) return -1;
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_renameat2, from, path, to, target, flags), error = errno;
    if (!done) put_path('R', here ? name : NULL, there ? other : NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int rename(const char *path, const char *target) { return renamed(AT_FDCWD, path, AT_FDCWD, target, 0); }
int renameat(int from, const char *path, int to, const char *target) { return renamed(from, path, to, target, 0); }
int renameat2(int from, const char *path, int to, const char *target, unsigned flags) {
    return renamed(from, path, to, target, flags);
}

static int linked(int from, const char *path, int to, const char *target, int flags) {
    char name[PATH_MAX], other[PATH_MAX];
    if (!find(from, path, name) || !find(to, target, other)) return syscall(SYS_linkat, from, path, to, target, flags);
    if (fails(OPEN, "link", other, -1)) return -1;
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_linkat, from, path, to, target, flags), error = errno;
    if (!done) put_path('L', name, other, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int link(const char *path, const char *target) { return linked(AT_FDCWD, path, AT_FDCWD, target, 0); }
int linkat(int from, const char *path, int to, const char *target, int flags) {
    return linked(from, path, to, target, flags);
}
