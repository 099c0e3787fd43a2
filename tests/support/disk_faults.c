// A library that is preloaded into a registry. It counts the writes and syncs of the database's files, makes some of
// them fail, and keeps a journal of them, from which a test works out what a disk would hold after a power cut.
//
//   DISK_FAULTS_DATABASE  path of the database; its log has the same name with `-wal`
//   DISK_FAULTS_JOURNAL   path of the journal
//   DISK_FAULTS_FAIL      `write` or `sync`: the kind of operation that fails
//   DISK_FAULTS_FIRST     number of the first operation that fails, from 1; DISK_FAULTS_LAST is the last one
//   DISK_FAULTS_ERROR     `EIO` or `ENOSPC`
//   DISK_FAULTS_WHILE     operations fail and are counted only while this file exists
//
// A journal record: kind (`w` write, `s` sync, `x` failed sync, `t` truncate, `u` unlink, `!` injected fault), file
// (`d` database, `l` log), six zero bytes, offset, length, and for `w` the bytes.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -2;
static long counted = 0;

#define REAL(type, name, ...)                                   \
    static type (*real)(__VA_ARGS__) = NULL;                    \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static char of_path(const char *path) {
    const char *database = getenv("DISK_FAULTS_DATABASE");
    size_t length = database ? strlen(database) : 0;
    if (!length || strncmp(path, database, length)) return 0;
    if (!path[length]) return 'd';
    return strcmp(path + length, "-wal") ? 0 : 'l';
}

static char of_fd(int fd) {
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return of_path(path);
}

static void record(char kind, char file, int64_t offset, const void *bytes, int64_t length) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (journal == -2) {
        const char *path = getenv("DISK_FAULTS_JOURNAL");
        journal = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    }
    if (journal < 0) return;
    char head[24] = {kind, file};
    memcpy(head + 8, &offset, 8);
    memcpy(head + 16, &length, 8);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)bytes, bytes ? length : 0}};
    if (real(journal, parts, 2) < 0) abort();
}

// Returns the error with which this operation fails, or 0 if it does not fail.
static int fault(const char *kind, char file) {
    const char *fail = getenv("DISK_FAULTS_FAIL"), *when = getenv("DISK_FAULTS_WHILE");
    const char *first = getenv("DISK_FAULTS_FIRST"), *last = getenv("DISK_FAULTS_LAST"), *error = getenv("DISK_FAULTS_ERROR");
    if (!fail || strcmp(fail, kind) || (when && access(when, F_OK))) return 0;
    counted++;
    if (counted < (first ? atol(first) : 1) || (last && counted > atol(last))) return 0;
    record('!', file, counted, NULL, 0);
    return error && !strcmp(error, "ENOSPC") ? ENOSPC : EIO;
}

static ssize_t write_at(int fd, const void *bytes, size_t length, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    char file = of_fd(fd);
    if (!file) return real(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    int error = fault("write", file);
    // A disk that becomes full still writes the bytes that fit.
    size_t fits = error == ENOSPC ? length / 2 : error ? 0 : length;
    ssize_t written = fits ? real(fd, bytes, fits, offset) : 0;
    if (written > 0) record('w', file, offset, bytes, written);
    pthread_mutex_unlock(&lock);
    if (!error) return written;
    errno = error;
    return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return write_at(fd, bytes, length, offset); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return write_at(fd, bytes, length, offset); }

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!of_fd(fd)) return real(fd, bytes, length);
    off64_t offset = lseek64(fd, 0, SEEK_CUR);
    ssize_t written = write_at(fd, bytes, length, offset);
    if (written > 0) lseek64(fd, offset + written, SEEK_SET);
    return written;
}

static int sync_file(int fd, int (*real)(int)) {
    char file = of_fd(fd);
    if (!file) return real(fd);
    pthread_mutex_lock(&lock);
    int error = fault("sync", file), result = error ? -1 : real(fd);
    record(result ? 'x' : 's', file, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (error) errno = error;
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return sync_file(fd, real);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return sync_file(fd, real);
}

static int truncate_file(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    char file = of_fd(fd);
    int result = real(fd, size);
    if (file && !result) {
        pthread_mutex_lock(&lock);
        record('t', file, size, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int ftruncate64(int fd, off64_t size) { return truncate_file(fd, size); }
int ftruncate(int fd, off_t size) { return truncate_file(fd, size); }

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    char file = of_path(path);
    int result = real(path);
    if (file && !result) {
        pthread_mutex_lock(&lock);
        record('u', file, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}
