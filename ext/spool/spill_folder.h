/* spill_folder.h: what a program asks of the spool folder, which may hang. See spill_folder.c. */
#ifndef FASTTRACE_SPILL_FOLDER_H
#define FASTTRACE_SPILL_FOLDER_H

#include "base/compat.h"

/* A question to the folder, in a thread of its own. */
typedef struct FolderTask FolderTask;

typedef enum {
    FOLDER_ANSWERED, /* folder_take() has the answer */
    FOLDER_WAITS,    /* there is no answer yet */
    FOLDER_NO_TASK,  /* nothing is asked: there is no memory, or it was given up and has ended */
} FolderAnswer;

/* Asks what a folder holds, and, where it has room for them, for a segment with `needed` bytes
 * besides its head; `needed` 0: only what it holds. `prefix`: the path of segments up to their
 * number; the folder is made where somebody has removed it. Does nothing where a task is there. */
void folder_ask(FolderTask **task, const char *prefix, uint64_t sequence, uint64_t max_bytes,
                uint64_t needed);

/* Looks for the answer, for so many nanoseconds at most. A task whose file nobody will take any
 * more counts as none once it has ended. */
FolderAnswer folder_wait(FolderTask **task, uint64_t ns);

/* Takes the answer: the bytes that the folder holds, and the descriptor of the segment; -1: there
 * is none. The task is gone then. */
int folder_take(FolderTask **task, uint64_t *held);

/* Gives the segment up that a task is to open: it is removed when the folder answers. Whether there
 * was such a task; its number is not to be used again. */
bool folder_give_up(FolderTask *task);

/* Lets go of a task, answered or not. */
void folder_forget(FolderTask **task);

/* Closes, in a forked child, the file that a task may have opened; the task may be NULL. */
void folder_after_fork(FolderTask *task);

/* Closes a file of the folder: a network's may be waited for. */
void folder_close(int fd);

/* The folder of a path's prefix; false when it is too long. */
bool folder_of(const char *prefix, char *folder, size_t room);

/* The bytes in those files of a folder whose names begin with `only`. */
uint64_t folder_bytes(const char *path, const char *only);

/* The path of a segment; false when it is too long. */
bool segment_path(char *path, size_t room, const char *prefix, uint64_t sequence);

#endif
