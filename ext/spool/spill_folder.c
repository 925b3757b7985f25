/* spill_folder.c: listing the spool folder, and opening files in it, apart from the program.
 *
 * The folder may be a network's, and one that hangs would stop the program: it holds the GIL where
 * it spills, and must, since the GIL makes it the ring's only producer. So a thread lists and
 * opens, which knows nothing of Python, and the program waits for it for a bounded time. A thread
 * that hangs keeps its task; no other is started meanwhile.
 *
 * A task is shared by the program and its thread. Its `state` says whose the opened file is, and
 * whoever lets go of the task last frees it. A forked child has the task and not the thread: it
 * forgets the task, whose memory it loses. */
#include "spool/spill_folder.h"

#include "base/background.h"
#include "base/clock.h"
#include "spool/segment_format.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS 50000u

enum {
    TASK_RUNS,
    TASK_ENDED,    /* the program takes the file */
    TASK_GIVEN_UP, /* the thread removes the file */
    TASK_REMOVED,  /* it has */
};

struct FolderTask {
    int users; /* the program and the thread, until each has let go */
    int state;
    uint64_t sequence, max_bytes, needed;
    uint64_t held; /* answer */
    int fd;        /* answer */
    char prefix[]; /* ends with a NUL */
};

bool folder_of(const char *prefix, char *folder, size_t room)
{
    const char *slash = strrchr(prefix, '/');
    size_t size = slash != NULL ? (size_t)(slash - prefix) : 0;
    if (size == 0 || size >= room) {
        return false;
    }
    memcpy(folder, prefix, size);
    folder[size] = '\0';
    return true;
}

uint64_t folder_bytes(const char *path, const char *only)
{
    uint64_t bytes = 0;
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return 0;
    }
    struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        struct stat info;
        if (strncmp(entry->d_name, only, strlen(only)) == 0 &&
            fstatat(dirfd(folder), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(info.st_mode)) {
            bytes += (uint64_t)info.st_size;
        }
    }
    closedir(folder);
    return bytes;
}

bool segment_path(char *path, size_t room, const char *prefix, uint64_t sequence)
{
    int n = snprintf(path, room, "%s-%06llu.seg", prefix, (unsigned long long)sequence);
    return n >= 0 && (size_t)n < room;
}

/* ---- in the thread ---- */

static int open_segment(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

/* Opens a segment that has its head; -1 where that cannot be. */
static int begin_segment(const char *path, const char *folder)
{
    char head[SEGMENT_HEAD_SIZE];
    int fd = open_segment(path);
    if (fd < 0 && errno == ENOENT && mkdir(folder, 0700) == 0) {
        fd = open_segment(path); /* somebody had removed the folder */
    }
    if (fd < 0) {
        return -1;
    }
    segment_head(head);
    /* Locked before it has a head: a segment with a head that is not locked is written no more. */
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || !write_whole(fd, head, sizeof head)) {
        close(fd);
        unlink(path);
        return -1;
    }
    return fd;
}

static void let_go(FolderTask *task)
{
    if (__atomic_sub_fetch(&task->users, 1, __ATOMIC_ACQ_REL) == 0) {
        free(task);
    }
}

static void *work(void *argument)
{
    FolderTask *task = argument;
    char path[4096], folder[4096];
    int runs = TASK_RUNS;
    bool named = folder_of(task->prefix, folder, sizeof folder) &&
                 segment_path(path, sizeof path, task->prefix, task->sequence);
    if (named) {
        task->held = folder_bytes(folder, "");
        uint64_t room = task->held < task->max_bytes ? task->max_bytes - task->held : 0;
        if (task->needed && room >= SEGMENT_HEAD_SIZE + task->needed) {
            task->fd = begin_segment(path, folder);
        }
    }
    if (!__atomic_compare_exchange_n(&task->state, &runs, TASK_ENDED, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        if (task->fd >= 0) {
            close(task->fd);
            unlink(path);
        }
        store_release(&task->state, TASK_REMOVED);
    }
    let_go(task);
    return NULL;
}

static void *work_close(void *argument)
{
    close((int)(intptr_t)argument);
    return NULL;
}

/* ---- in the program ---- */

void folder_ask(FolderTask **task, const char *prefix, uint64_t sequence, uint64_t max_bytes,
                uint64_t needed)
{
    if (*task != NULL) {
        return;
    }
    size_t size = strlen(prefix) + 1;
    FolderTask *fresh = calloc(1, sizeof *fresh + size);
    if (fresh == NULL) {
        return;
    }
    fresh->users = 2;
    fresh->sequence = sequence;
    fresh->max_bytes = max_bytes;
    fresh->needed = needed;
    fresh->fd = -1;
    memcpy(fresh->prefix, prefix, size);
    *task = fresh;
    if (!background_start(work, fresh)) {
        work(fresh); /* a program that may have no more threads waits for its folder itself */
    }
}

FolderAnswer folder_wait(FolderTask **task, uint64_t ns)
{
    const struct timespec look = {.tv_nsec = LOOK_NS};
    uint64_t until = steady_ns() + ns;
    while (*task != NULL) {
        int state = load_acquire(&(*task)->state);
        if (state == TASK_ENDED) {
            return FOLDER_ANSWERED;
        }
        if (state == TASK_REMOVED) {
            let_go(*task);
            *task = NULL;
            break;
        }
        if (ns == 0 || steady_ns() >= until) {
            return FOLDER_WAITS;
        }
        nanosleep(&look, NULL);
    }
    return FOLDER_NO_TASK;
}

int folder_take(FolderTask **task, uint64_t *held)
{
    int fd = (*task)->fd;
    *held = (*task)->held;
    let_go(*task);
    *task = NULL;
    return fd;
}

bool folder_give_up(FolderTask *task)
{
    int runs = TASK_RUNS;
    return task != NULL && __atomic_compare_exchange_n(&task->state, &runs, TASK_GIVEN_UP, false,
                                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void folder_forget(FolderTask **task)
{
    if (*task == NULL) {
        return;
    }
    if (!folder_give_up(*task) && load_acquire(&(*task)->state) == TASK_ENDED && (*task)->fd >= 0) {
        close((*task)->fd); /* a segment with a head and nothing else, which the sender removes */
    }
    let_go(*task);
    *task = NULL;
}

void folder_after_fork(FolderTask *task)
{
    if (task != NULL && task->fd >= 0) {
        close(task->fd);
        task->fd = -1;
    }
}

void folder_close(int fd)
{
    if (!background_start(work_close, (void *)(intptr_t)fd)) {
        close(fd);
    }
}
