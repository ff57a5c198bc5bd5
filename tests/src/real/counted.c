/*
 * Preloaded into a daemon under test: counts its copies of memory and its allocations, in a file that the test reads meanwhile.
 *
 * Not counted: what the kernel copies; what the C library does for itself; a copy that the compiler made without a call, which it does for
 * a few hundred bytes of constant length at most. A reallocation counts as an allocation, and as a copy if its memory moved. Programs
 * that a daemon starts count into the same file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* As in counted.rs. */
struct counters {
    uint64_t allocations;
    uint64_t small_copies;
    uint64_t large_copies;
    uint64_t copied_bytes;
};

/* Less is no payload, and no part of one that matters. */
enum { SMALLEST = 256, SMALL = 4096, LARGE = 16384 };

typedef void *copy_function(void *, const void *, size_t);

/* Used until the file is there. */
static struct counters nowhere;
static struct counters *counters = &nowhere;
static copy_function *real_memcpy, *real_memmove;

/* The C library's own, by names that nobody overrides. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void count(uint64_t *counter, uint64_t by) { __atomic_fetch_add(counter, by, __ATOMIC_RELAXED); }

static void copied(size_t bytes) {
    if (bytes < SMALLEST)
        return;
    count(&counters->copied_bytes, bytes);
    if (bytes >= LARGE)
        count(&counters->large_copies, 1);
    else if (bytes >= SMALL)
        count(&counters->small_copies, 1);
}

/* Before the constructor has run; the compiler must not make a call of memcpy of it. */
static void *by_hand(void *to, const void *from, size_t bytes) {
    volatile unsigned char *target = to;
    const unsigned char *source = from;
    if ((uintptr_t)to <= (uintptr_t)from)
        for (size_t i = 0; i < bytes; i++)
            target[i] = source[i];
    else
        for (size_t i = bytes; i-- > 0;)
            target[i] = source[i];
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    copied(bytes);
    return (real_memcpy ? real_memcpy : by_hand)(to, from, bytes);
}

void *memmove(void *to, const void *from, size_t bytes) {
    copied(bytes);
    return (real_memmove ? real_memmove : by_hand)(to, from, bytes);
}

void *malloc(size_t bytes) {
    count(&counters->allocations, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t items, size_t bytes) {
    count(&counters->allocations, 1);
    return __libc_calloc(items, bytes);
}

void *realloc(void *memory, size_t bytes) {
    size_t before = memory ? malloc_usable_size(memory) : 0;
    count(&counters->allocations, 1);
    void *moved = __libc_realloc(memory, bytes);
    if (moved != memory)
        copied(before < bytes ? before : bytes);
    return moved;
}

void *memalign(size_t alignment, size_t bytes) {
    count(&counters->allocations, 1);
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
    void *found = memalign(alignment, bytes);
    if (!found)
        return ENOMEM;
    *memory = found;
    return 0;
}

/* What cannot be counted ends the daemon, and with it the test. */
__attribute__((constructor)) static void begin(void) {
    real_memcpy = (copy_function *)dlsym(RTLD_NEXT, "memcpy");
    real_memmove = (copy_function *)dlsym(RTLD_NEXT, "memmove");
    const char *path = getenv("POLLUX_COUNTERS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *found = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (!real_memcpy || !real_memmove || file < 0 || found == MAP_FAILED)
        _exit(99);
    close(file);
    counters = found;
}
