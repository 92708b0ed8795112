/* A libcuda.so.1 and libnvidia-ml.so.1 without a GPU: the calls that trims makes, with their arguments checked.

   It proves that the calls arrive as they were meant: structures, sizes, flags, contexts. Memory is a file in
   STUBCUDA_DIR/<index>, locked as trims.devices.simulated_gpus does it, so it counts as used while any process has a
   handle, descriptor or mapping of it. Constants are those of <cuda.h> and <nvml.h>.

   STUBCUDA_GPUS     how many there are; 2
   STUBCUDA_VERSION  what cuDriverGetVersion answers; 12040
   STUBCUDA_FAIL     CALL=NUMBER,...  the CUresult that a call answers, whatever it was asked
   STUBCUDA_WITHOUT  CALL  a call that this driver does not have
   STUBCUDA_MIG      GPUs are MIG slices
   STUBCUDA_WAIT     FIFO  cuStreamSynchronize returns when it was opened for writing, and closed
   STUBNVML_MODE, STUBNVML_MIG, STUBNVML_PID, STUBNVML_MPS   compute mode, MIG mode, pids of a process and of a client */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int R; /* CUresult */
typedef uint64_t Ptr;
enum { OK = 0, INVALID = 1, NOMEM = 2, NOINIT = 3, NODEVICE = 100, BADDEVICE = 101, BADCONTEXT = 201,
       PEERLESS = 217, BADHANDLE = 400, NOTFOUND = 500, ILLEGAL = 700, REGISTERED = 712, NOTREGISTERED = 713, UNSUPPORTED = 801 };
enum { DEVICE = 1, PINNED = 1, POSIX_FD = 1, READ = 1, READWRITE = 3, MOST = 512 };
#define GRANULE (2UL << 20)
#define TOTAL (256UL << 20)
#define CONTEXT (8UL << 20)

typedef struct { int type, id; } Location;
typedef struct {
    int type, handles;
    Location location;
    void *win32;
    struct { unsigned char compression, rdma; unsigned short usage; unsigned char reserved[4]; } flags;
} Properties;
typedef struct { Location location; int flags; } Access;
typedef struct { Ptr at; size_t size; int fd, gpu, access[8], kind, opens; char name[40]; } Mapping;
enum { VMM, OWN, OPENED }; /* its kind: whose calls undo it; fd and name are of the latter two */
typedef struct { Ptr at; size_t size; } Range;
typedef struct { int used, fd, gpu; } Handle;
typedef struct { int opens, fd, device, fault; } Context;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t started;
static int visible[8], gpus;
static Handle handles[MOST];
static Mapping mappings[MOST];
static Range reserved[MOST], pinned[MOST], registered[MOST];
static Context contexts[8];
static int streams[MOST]; /* the device of each, and one */
static __thread Context *stack[16];
static __thread int depth;

static const char *env(const char *name, const char *otherwise) {
    const char *found = getenv(name);
    return found ? found : otherwise;
}

static int chosen(const char *call) { /* what STUBCUDA_FAIL says of a call, or -1 */
    const char *at = env("STUBCUDA_FAIL", "");
    size_t n = strlen(call);
    for (; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, call, n) && at[n] == '=') return atoi(at + n + 1);
    return -1;
}

#define BEGIN                                          \
    do {                                               \
        int fails = chosen(__func__);                  \
        if (fails >= 0) return fails;                  \
        if (started != getpid() || !gpus) return NOINIT; \
    } while (0)
#define WITHIN                                                  \
    BEGIN;                                                      \
    if (!depth || !stack[depth - 1]->opens) return BADCONTEXT;  \
    if (stack[depth - 1]->fault) return stack[depth - 1]->fault
#define HERE (stack[depth - 1]->device)

static void uuid(int gpu, unsigned char *out) {
    for (int n = 0; n < 16; n++) out[n] = (unsigned char)(16 * gpu + n);
}

static void uuid_text(int gpu, char *out) {
    unsigned char b[16];
    uuid(gpu, b);
    out += sprintf(out, getenv("STUBCUDA_MIG") ? "MIG-" : "GPU-");
    for (int n = 0; n < 16; n++) out += sprintf(out, n == 4 || n == 6 || n == 8 || n == 10 ? "-%02x" : "%02x", b[n]);
}

static size_t used(int gpu) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%d", env("STUBCUDA_DIR", "/nonexistent"), gpu);
    DIR *dir = opendir(path);
    size_t sum = 0;
    if (!dir) return 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC);
        struct stat s;
        if (fd < 0) continue;
        if (!flock(fd, LOCK_EX | LOCK_NB)) unlinkat(dirfd(dir), e->d_name, 0);
        else if (!fstat(fd, &s)) sum += (size_t)s.st_size;
        close(fd);
    }
    closedir(dir);
    return sum;
}

static int exclusive(void) { /* a look at what is used must be nobody else's */
    char path[4096];
    snprintf(path, sizeof path, "%s/lock", env("STUBCUDA_DIR", "/nonexistent"));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) flock(fd, LOCK_EX);
    return fd;
}

static int make(int gpu, size_t size) { /* a descriptor, or -1 when there is no room */
    char path[4096];
    int held = exclusive(), fd = -1;
    if (used(gpu) + size <= TOTAL) {
        snprintf(path, sizeof path, "%s/%d/XXXXXX", env("STUBCUDA_DIR", "/nonexistent"), gpu);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0 && (ftruncate(fd, (off_t)size) || flock(fd, LOCK_SH))) { close(fd); fd = -1; }
    }
    close(held);
    return fd;
}

/* ---- without a context */

static R cuInit(unsigned flags) {
    int fails = chosen(__func__);
    if (fails >= 0) return fails;
    if (flags) return INVALID;
    if (started) return started == getpid() ? OK : NOINIT;
    int count = atoi(env("STUBCUDA_GPUS", "2"));
    const char *word = getenv("CUDA_VISIBLE_DEVICES");
    if (!word) {
        for (gpus = 0; gpus < count; gpus++) visible[gpus] = gpus;
    } else {
        char *copy = strdup(word), *rest = copy;
        for (char *one; (one = strsep(&rest, ","));) {
            int found = -1;
            for (int n = 0; n < count && found < 0; n++) {
                char index[12], name[48];
                sprintf(index, "%d", n);
                uuid_text(n, name);
                if (!strcmp(one, index) || (strlen(one) > 4 && !strncmp(one, name, strlen(one)))) found = n;
            }
            if (found < 0) break;
            visible[gpus++] = found;
        }
        free(copy);
    }
    started = getpid();
    return gpus ? OK : NODEVICE;
}

static R cuDriverGetVersion(int *version) {
    *version = atoi(env("STUBCUDA_VERSION", "12040"));
    return OK;
}

static R cuDeviceGetCount(int *count) { BEGIN; *count = gpus; return OK; }

static R cuDeviceGet(int *device, int ordinal) {
    BEGIN;
    if (ordinal < 0 || ordinal >= gpus) return BADDEVICE;
    *device = ordinal;
    return OK;
}

static R cuDeviceGetName(char *name, int size, int device) {
    BEGIN;
    if (device < 0 || device >= gpus) return BADDEVICE;
    snprintf(name, (size_t)size, "Stub%s", getenv("STUBCUDA_MIG") ? " MIG 1g.10gb" : "");
    return OK;
}

static R old_uuid(unsigned char *out, int device) { /* before 11.4: of the GPU, also for a slice */
    BEGIN;
    memset(out, 0xee, 16);
    return device < 0 ? BADDEVICE : OK;
}

static R cuDeviceGetUuid(unsigned char *out, int device) {
    BEGIN;
    if (device < 0 || device >= gpus) return BADDEVICE;
    uuid(visible[device], out);
    return OK;
}

static R cuDeviceTotalMem(size_t *size, int device) {
    BEGIN;
    if (device < 0 || device >= gpus) return BADDEVICE;
    *size = TOTAL;
    return OK;
}

static R cuDeviceGetAttribute(int *value, int attribute, int device) {
    BEGIN;
    if (device < 0 || device >= gpus) return BADDEVICE;
    if (attribute != 102 && attribute != 103 && attribute != 113) return INVALID;
    *value = attribute != atoi(env("STUBCUDA_NO_ATTRIBUTE", "0"));
    return OK;
}

static R cuDeviceCanAccessPeer(int *can, int device, int peer) {
    BEGIN;
    if (device < 0 || device >= gpus || peer < 0 || peer >= gpus) return BADDEVICE;
    *can = device != peer;
    return OK;
}

static R check(const Properties *p) {
    static const Properties zero;
    if (!p || p->type != PINNED || p->handles != POSIX_FD || p->location.type != DEVICE) return INVALID;
    if (p->location.id < 0 || p->location.id >= gpus) return BADDEVICE;
    if (p->win32 || memcmp(&p->flags, &zero.flags, sizeof zero.flags)) return INVALID;
    return OK;
}

static R cuMemGetAllocationGranularity(size_t *size, const Properties *p, int option) {
    BEGIN;
    *size = GRANULE;
    return option ? INVALID : check(p);
}

static R keep(Ptr *handle, int fd, int gpu) {
    pthread_mutex_lock(&lock);
    int n = 1;
    while (n < MOST && handles[n].used) n++;
    if (n < MOST) handles[n] = (Handle){1, fd, gpu};
    pthread_mutex_unlock(&lock);
    if (n == MOST) { close(fd); return NOMEM; }
    *handle = (Ptr)n;
    return OK;
}

static Handle *handle_of(Ptr handle) {
    return handle < MOST && handles[handle].used ? &handles[handle] : NULL;
}

static R cuMemCreate(Ptr *handle, size_t size, const Properties *p, unsigned long long flags) {
    BEGIN;
    R bad = check(p);
    if (bad || flags || !size || size % GRANULE) return bad ? bad : INVALID;
    int gpu = visible[p->location.id], fd = make(gpu, size);
    return fd < 0 ? NOMEM : keep(handle, fd, gpu);
}

static R cuMemExportToShareableHandle(void *out, Ptr handle, int type, unsigned long long flags) {
    BEGIN;
    Handle *h = handle_of(handle);
    if (!h || type != POSIX_FD || flags) return INVALID;
    *(int *)out = dup(h->fd); /* not close-on-exec: who wants that has to see to it */
    return OK;
}

static R cuMemImportFromShareableHandle(Ptr *handle, void *os, int type) {
    BEGIN;
    char link[64], path[4096];
    int fd = (int)(uintptr_t)os, gpu = -1;
    if (type != POSIX_FD) return INVALID;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return INVALID;
    path[n] = 0;
    char *name = strrchr(path, '/');
    if (strncmp(path, env("STUBCUDA_DIR", "?"), strlen(env("STUBCUDA_DIR", "?"))) || !name) return INVALID;
    *name = 0;
    for (int d = 0; d < gpus; d++)
        if (strrchr(path, '/') && atoi(strrchr(path, '/') + 1) == visible[d]) gpu = visible[d];
    return gpu < 0 ? BADDEVICE : keep(handle, fcntl(fd, F_DUPFD_CLOEXEC, 3), gpu);
}

static R cuMemRelease(Ptr handle) {
    BEGIN;
    Handle *h = handle_of(handle);
    if (!h) return INVALID;
    h->used = 0;
    close(h->fd);
    return OK;
}

/* ---- addresses */

static R add(Range *to, Ptr at, size_t size) {
    for (int n = 0; n < MOST; n++)
        if (!to[n].size) { to[n] = (Range){at, size}; return OK; }
    return NOMEM;
}

static R drop(Range *from, Ptr at, size_t *size) {
    for (int n = 0; n < MOST; n++)
        if (from[n].size && from[n].at == at) { *size = from[n].size; from[n].size = 0; return OK; }
    return INVALID;
}

static R cuMemAddressReserve(Ptr *at, size_t size, size_t alignment, Ptr hint, unsigned long long flags) {
    BEGIN;
    if (!size || size % GRANULE || alignment || hint || flags) return INVALID;
    char *p = mmap(NULL, size + GRANULE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NOMEM;
    char *start = (char *)(((uintptr_t)p + GRANULE - 1) / GRANULE * GRANULE);
    if (start > p) munmap(p, (size_t)(start - p));
    munmap(start + size, GRANULE - (size_t)(start - p));
    *at = (Ptr)start;
    return add(reserved, *at, size);
}

static R cuMemAddressFree(Ptr at, size_t size) {
    BEGIN;
    size_t was;
    for (int n = 0; n < MOST; n++)
        if (mappings[n].size && mappings[n].at >= at && mappings[n].at < at + size) return INVALID;
    if (drop(reserved, at, &was)) return INVALID;
    if (was != size) { add(reserved, at, was); return INVALID; }
    munmap((void *)at, size);
    return OK;
}

static R cuMemMap(Ptr at, size_t size, size_t offset, Ptr handle, unsigned long long flags) {
    BEGIN;
    Handle *h = handle_of(handle);
    struct stat s;
    int inside = 0;
    if (!h || offset || flags || at % GRANULE || fstat(h->fd, &s) || (size_t)s.st_size != size) return INVALID;
    for (int n = 0; n < MOST; n++) {
        inside |= reserved[n].size && reserved[n].at <= at && at + size <= reserved[n].at + reserved[n].size;
        if (mappings[n].size && mappings[n].at < at + size && at < mappings[n].at + mappings[n].size) return INVALID;
    }
    if (!inside) return INVALID;
    for (int n = 0; n < MOST; n++)
        if (!mappings[n].size) {
            if (mmap((void *)at, size, PROT_NONE, MAP_SHARED | MAP_FIXED, h->fd, 0) == MAP_FAILED) return NOMEM;
            mappings[n] = (Mapping){.at = at, .size = size, .gpu = h->gpu};
            return OK;
        }
    return NOMEM;
}

static int covers(Ptr at, size_t size) { /* whether whole mappings make up a range */
    size_t sum = 0;
    for (int n = 0; n < MOST; n++) {
        Mapping *m = &mappings[n];
        if (!m->size || m->at + m->size <= at || m->at >= at + size) continue;
        if (m->at < at || m->at + m->size > at + size || m->kind != VMM) return 0;
        sum += m->size;
    }
    return size && sum == size;
}

static R cuMemSetAccess(Ptr at, size_t size, const Access *access, size_t count) {
    BEGIN;
    if (!access || count != 1 || access->location.type != DEVICE || !covers(at, size)) return INVALID;
    if (access->location.id < 0 || access->location.id >= gpus) return BADDEVICE;
    if (access->flags != READ && access->flags != READWRITE) return UNSUPPORTED;
    for (int n = 0; n < MOST; n++) {
        Mapping *m = &mappings[n];
        if (!m->size || m->at < at || m->at >= at + size) continue;
        m->access[access->location.id] = access->flags;
        int write = 0;
        for (int d = 0; d < gpus; d++) write |= m->access[d] == READWRITE;
        if (mprotect((void *)m->at, m->size, write ? PROT_READ | PROT_WRITE : PROT_READ)) return NOMEM;
    }
    return OK;
}

static Mapping *mapping_of(Ptr at) {
    for (int n = 0; n < MOST; n++)
        if (mappings[n].size && mappings[n].at <= at && at < mappings[n].at + mappings[n].size) return &mappings[n];
    return NULL;
}

static R cuMemGetAccess(unsigned long long *flags, const Location *location, Ptr at) {
    BEGIN;
    Mapping *m = mapping_of(at);
    if (!m || !location || location->type != DEVICE) return INVALID;
    if (location->id < 0 || location->id >= gpus) return BADDEVICE;
    *flags = (unsigned long long)m->access[location->id];
    return OK;
}

static R cuMemUnmap(Ptr at, size_t size) {
    BEGIN;
    if (!covers(at, size)) return INVALID;
    mmap((void *)at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    for (int n = 0; n < MOST; n++)
        if (mappings[n].size && mappings[n].at >= at && mappings[n].at < at + size) mappings[n].size = 0;
    return OK;
}

static void take_away(Mapping *m) {
    munmap((void *)m->at, m->size);
    close(m->fd);
    m->size = 0;
}

/* ---- with a context */

static R cuDevicePrimaryCtxRetain(Context **context, int device) {
    BEGIN;
    if (device < 0 || device >= gpus) return BADDEVICE;
    Context *c = &contexts[device];
    if (!c->opens && (c->fd = make(visible[device], CONTEXT)) < 0) return NOMEM;
    c->opens++;
    c->device = device;
    *context = c;
    return OK;
}

static R cuDevicePrimaryCtxRelease(int device) {
    BEGIN;
    if (device < 0 || device >= gpus) return BADDEVICE;
    if (!contexts[device].opens) return BADCONTEXT;
    if (--contexts[device].opens) return OK;
    close(contexts[device].fd);
    for (int n = 0; n < MOST; n++) /* what is a context's goes with it */
        if (mappings[n].size && mappings[n].kind != VMM && mappings[n].access[device]) take_away(&mappings[n]);
    return OK;
}

static R cuCtxPushCurrent(Context *context) {
    BEGIN;
    if (!context || !context->opens || depth == 16) return BADCONTEXT;
    stack[depth++] = context;
    return OK;
}

static R cuCtxPopCurrent(Context **context) {
    BEGIN;
    if (!depth) return BADCONTEXT;
    *context = stack[--depth];
    return OK;
}

static R cuCtxGetCurrent(Context **context) {
    BEGIN;
    *context = depth ? stack[depth - 1] : NULL;
    return OK;
}

static R cuCtxSynchronize(void) { WITHIN; return OK; }

static R cuMemHostAlloc(void **at, size_t size, unsigned flags) {
    WITHIN;
    if (!size || flags) return INVALID;
    *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return *at == MAP_FAILED ? NOMEM : add(pinned, (Ptr)*at, size);
}

static R cuMemFreeHost(void *at) {
    WITHIN;
    size_t size;
    if (drop(pinned, (Ptr)at, &size)) return INVALID;
    munmap(at, size);
    return OK;
}

static int mapped(Ptr at, size_t size, char want) { /* whether this process has all of a range, "w"ritable or not */
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], access[8];
    Ptr end = at + size;
    unsigned long first, last;
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &first, &last, access) == 3 && first <= at && at < last &&
            (want == 'r' ? access[0] == 'r' : access[1] == 'w'))
            at = last;
    if (maps) fclose(maps);
    return at >= end;
}

static R cuMemHostRegister(void *at, size_t size, unsigned flags) {
    WITHIN;
    if (!size || (flags & ~8u)) return INVALID;
    if (flags && atoi(env("STUBCUDA_NO_ATTRIBUTE", "0")) == 113) return UNSUPPORTED;
    if (!mapped((Ptr)at, size, flags ? 'r' : 'w')) return INVALID;
    for (int n = 0; n < MOST; n++)
        if (registered[n].size && registered[n].at < (Ptr)at + size && (Ptr)at < registered[n].at + registered[n].size)
            return REGISTERED;
    return add(registered, (Ptr)at, size);
}

static R cuMemHostUnregister(void *at) {
    WITHIN;
    size_t size;
    return drop(registered, (Ptr)at, &size) ? NOTREGISTERED : OK;
}

static R cuStreamCreate(Ptr *stream, unsigned flags) {
    WITHIN;
    if (flags > 1) return INVALID;
    for (int n = 1; n < MOST; n++)
        if (!streams[n]) { streams[n] = HERE + 1; *stream = 0x5000 + (Ptr)n; return OK; }
    return NOMEM;
}

static int no_stream(Ptr stream) {
    return stream <= 0x5000 || stream >= 0x5000 + MOST || streams[stream - 0x5000] != HERE + 1;
}

static R cuStreamSynchronize(Ptr stream) {
    WITHIN;
    if (no_stream(stream)) return BADHANDLE;
    if (getenv("STUBCUDA_WAIT")) {
        char byte;
        int fd = open(getenv("STUBCUDA_WAIT"), O_RDONLY | O_CLOEXEC);
        while (read(fd, &byte, 1) > 0) {}
        close(fd);
    }
    return OK;
}

static R cuStreamDestroy(Ptr stream) {
    WITHIN;
    if (no_stream(stream)) return BADHANDLE;
    streams[stream - 0x5000] = 0;
    return OK;
}

static int may(Ptr at, size_t size, int access) { /* whether the current GPU may read (1) or write (3) a range */
    for (Ptr end = at + size; at < end;) {
        Mapping *m = mapping_of(at);
        if (!m || (m->access[HERE] & access) != access) return 0;
        at = m->at + m->size;
    }
    return 1;
}

static R copy(Ptr to, Ptr from, size_t size, Ptr stream, int device_to, int device_from) {
    if (no_stream(stream)) return BADHANDLE;
    if ((device_to && !mapping_of(to)) || (device_from && !mapping_of(from))) return INVALID;
    if ((device_to && !may(to, size, READWRITE)) || (device_from && !may(from, size, READ)))
        stack[depth - 1]->fault = ILLEGAL; /* found while it is made: reported later, and from then on */
    else memmove((void *)to, (void *)from, size);
    return OK;
}

static R cuMemcpyHtoDAsync(Ptr to, void *from, size_t size, Ptr stream) {
    WITHIN;
    return copy(to, (Ptr)from, size, stream, 1, 0);
}

static R cuMemcpyDtoHAsync(void *to, Ptr from, size_t size, Ptr stream) {
    WITHIN;
    return copy((Ptr)to, from, size, stream, 0, 1);
}

static R cuMemcpyDtoDAsync(Ptr to, Ptr from, size_t size, Ptr stream) {
    WITHIN;
    return copy(to, from, size, stream, 1, 1);
}

/* ---- legacy IPC */

typedef struct { int pid, gpu; char name[40], rest[16]; } IpcHandle;
typedef char ipc_handle_has_64_bytes[sizeof(IpcHandle) == 64 ? 1 : -1];

static Mapping *place(int fd, size_t size, int kind, const char *name) { /* for the GPU that is current to use */
    char *p = mmap(NULL, size + GRANULE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    char *start = (char *)(((uintptr_t)p + GRANULE - 1) / GRANULE * GRANULE);
    if (start > p) munmap(p, (size_t)(start - p));
    munmap(start + size, GRANULE - (size_t)(start - p));
    if (mmap(start, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) return NULL;
    for (int n = 0; n < MOST; n++)
        if (!mappings[n].size) {
            mappings[n] = (Mapping){.at = (Ptr)start, .size = size, .fd = fd, .gpu = visible[HERE], .kind = kind};
            mappings[n].access[HERE] = READWRITE;
            snprintf(mappings[n].name, sizeof mappings[n].name, "%s", name);
            return &mappings[n];
        }
    return NULL;
}

static Mapping *begins(Ptr at, int kind) {
    Mapping *m = mapping_of(at);
    return m && m->at == at && m->kind == kind && m->access[HERE] ? m : NULL;
}

static R cuMemAlloc(Ptr *at, size_t size) {
    WITHIN;
    char link[64], path[4096];
    size_t whole = (size + GRANULE - 1) / GRANULE * GRANULE;
    if (!size) return INVALID;
    int fd = make(visible[HERE], whole);
    if (fd < 0) return NOMEM;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    Mapping *m = place(fd, whole, OWN, n > 0 ? strrchr(path, '/') + 1 : "");
    if (!m) { close(fd); return NOMEM; }
    *at = m->at;
    return OK;
}

static R cuMemFree(Ptr at) {
    WITHIN;
    Mapping *m = begins(at, OWN);
    if (m) take_away(m);
    return m ? OK : INVALID;
}

static R cuIpcGetMemHandle(IpcHandle *handle, Ptr at) {
    WITHIN;
    Mapping *m = begins(at, OWN);
    if (!m) return INVALID;
    memset(handle, 0, sizeof *handle);
    handle->pid = getpid();
    handle->gpu = m->gpu;
    memcpy(handle->name, m->name, sizeof m->name);
    return OK;
}

static R cuIpcOpenMemHandle(Ptr *at, IpcHandle handle, unsigned flags) {
    WITHIN;
    char path[4096];
    struct stat s;
    if (flags != 1) return INVALID;
    if (handle.pid == getpid()) return BADCONTEXT;
    if (handle.gpu != visible[HERE]) return PEERLESS;
    for (int n = 0; n < MOST; n++)
        if (mappings[n].size && mappings[n].kind == OPENED && !strcmp(mappings[n].name, handle.name)) {
            mappings[n].opens++;
            *at = mappings[n].at;
            return OK;
        }
    snprintf(path, sizeof path, "%s/%d/%.39s", env("STUBCUDA_DIR", "/nonexistent"), handle.gpu, handle.name);
    int held = exclusive(), fd = open(path, O_RDWR | O_CLOEXEC), lives = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB);
    if (fd >= 0 && !lives) { close(fd); fd = -1; }
    close(held);
    if (fd < 0 || fstat(fd, &s)) return INVALID;
    Mapping *m = place(fd, (size_t)s.st_size, OPENED, handle.name);
    if (!m) { close(fd); return NOMEM; }
    m->opens = 1;
    *at = m->at;
    return OK;
}

static R cuIpcCloseMemHandle(Ptr at) {
    WITHIN;
    Mapping *m = begins(at, OPENED);
    if (m && !--m->opens) take_away(m);
    return m ? OK : INVALID;
}

R cuGetProcAddress_v2(const char *name, void **call, int version, uint64_t flags, int *status);

/* Each call, with the version from which on the driver has it in this form. */
#define CALL(name, since) {#name, since, (void *)name}
static const struct { const char *name; int since; void *call; } table[] = {
    CALL(cuInit, 2000), CALL(cuDriverGetVersion, 2020), CALL(cuDeviceGet, 2000), CALL(cuDeviceGetCount, 2000),
    CALL(cuDeviceGetName, 2000), {"cuDeviceGetUuid", 9020, (void *)old_uuid}, CALL(cuDeviceGetUuid, 11040),
    CALL(cuDeviceTotalMem, 3020), CALL(cuDeviceGetAttribute, 2000), CALL(cuDeviceCanAccessPeer, 4000),
    CALL(cuMemGetAllocationGranularity, 10020), CALL(cuMemCreate, 10020), CALL(cuMemRelease, 10020),
    CALL(cuMemExportToShareableHandle, 10020), CALL(cuMemImportFromShareableHandle, 10020),
    CALL(cuMemAddressReserve, 10020), CALL(cuMemAddressFree, 10020), CALL(cuMemMap, 10020),
    CALL(cuMemSetAccess, 10020), CALL(cuMemGetAccess, 10020), CALL(cuMemUnmap, 10020),
    CALL(cuDevicePrimaryCtxRetain, 7000), CALL(cuDevicePrimaryCtxRelease, 11000), CALL(cuCtxPushCurrent, 4000),
    CALL(cuCtxPopCurrent, 4000), CALL(cuCtxGetCurrent, 4000), CALL(cuCtxSynchronize, 2000),
    CALL(cuMemHostAlloc, 2020), CALL(cuMemFreeHost, 2000), CALL(cuMemHostRegister, 6050),
    CALL(cuMemHostUnregister, 4000), CALL(cuStreamCreate, 2000), CALL(cuStreamSynchronize, 2000),
    CALL(cuStreamDestroy, 4000), CALL(cuMemcpyHtoDAsync, 3020), CALL(cuMemcpyDtoHAsync, 3020),
    CALL(cuMemcpyDtoDAsync, 3020), CALL(cuMemAlloc, 3020), CALL(cuMemFree, 3020), CALL(cuIpcGetMemHandle, 4010),
    CALL(cuIpcOpenMemHandle, 11000), CALL(cuIpcCloseMemHandle, 4010), {"cuGetProcAddress", 12000, (void *)cuGetProcAddress_v2},
};

R cuGetProcAddress_v2(const char *name, void **call, int version, uint64_t flags, int *status) {
    int best = 0;
    *call = NULL;
    for (size_t n = 0; n < sizeof table / sizeof *table; n++)
        if (!strcmp(table[n].name, name) && table[n].since <= version && table[n].since > best && !(flags & ~1UL) &&
            strcmp(name, env("STUBCUDA_WITHOUT", ""))) {
            best = table[n].since;
            *call = table[n].call;
        }
    if (status) *status = !*call;
    return *call ? OK : NOTFOUND;
}

/* ---- the management library */

enum { N_OK = 0, N_UNINITIALIZED = 1, N_UNSUPPORTED = 3, N_NOTFOUND = 6, N_SIZE = 7 };
typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute; } Process;
static int opened;
static int here[8] = {0, 1, 2, 3, 4, 5, 6, 7};

R nvmlInitWithFlags(unsigned flags) { opened = !flags; return N_OK; }

const char *nvmlErrorString(R error) { return error == N_NOTFOUND ? "Not Found" : "Error"; }

R nvmlDeviceGetHandleByUUID(const char *name, void **device) {
    char text[48];
    if (!opened) return N_UNINITIALIZED;
    for (int n = 0; n < atoi(env("STUBCUDA_GPUS", "2")); n++) {
        uuid_text(n, text);
        if (!strcmp(text, name)) { *device = &here[n]; return N_OK; }
    }
    return N_NOTFOUND;
}

R nvmlDeviceGetMemoryInfo(int *device, unsigned long long *memory) {
    int held = exclusive();
    memory[0] = TOTAL;
    memory[2] = used(*device);
    memory[1] = memory[0] - memory[2];
    close(held);
    return N_OK;
}

R nvmlDeviceGetUUID(int *device, char *text, unsigned size) {
    (void)device;
    return snprintf(text, size, "GPU-whole") < 0;
}

R nvmlDeviceGetDeviceHandleFromMigDeviceHandle(int *slice, void **device) { *device = slice; return N_OK; }

R nvmlDeviceGetComputeMode(int *device, int *mode) {
    (void)device;
    *mode = atoi(env("STUBNVML_MODE", "0"));
    return N_OK;
}

R nvmlDeviceGetMigMode(int *device, unsigned *now, unsigned *next) {
    (void)device;
    *now = *next = (unsigned)atoi(env("STUBNVML_MIG", "0"));
    return getenv("STUBNVML_MIG") ? N_OK : N_UNSUPPORTED; /* as a GPU without MIG */
}

static R one(const char *name, unsigned *count, Process *out) {
    if (!getenv(name)) { *count = 0; return N_OK; }
    if (!*count || !out) { *count = 1; return N_SIZE; }
    *count = 1;
    *out = (Process){(unsigned)atoi(getenv(name)), 1 << 20, ~0u, ~0u};
    return N_OK;
}

R nvmlDeviceGetComputeRunningProcesses_v3(int *device, unsigned *count, Process *out) {
    (void)device;
    return one("STUBNVML_PID", count, out);
}

R nvmlDeviceGetMPSComputeRunningProcesses_v3(int *device, unsigned *count, Process *out) {
    (void)device;
    return one("STUBNVML_MPS", count, out);
}
