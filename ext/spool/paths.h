/* paths.h: paths that Python hands in, and errors that name them. See paths.c. */
#ifndef FASTTRACE_PATHS_H
#define FASTTRACE_PATHS_H

#include "base/compat.h"

/* A converter for PyArg_Parse*(), as PyUnicode_FSConverter, which is for paths that must be there:
 * a str, bytes or os.PathLike as bytes, which the caller owns; NULL for None. Names that are no
 * UTF-8 come as os.fsdecode() gives them. */
RUNS_PYTHON int optional_path(PyObject *argument, void *result);

/* The bytes of a converted path, which lie in it; NULL for NULL. */
const char *path_bytes(PyObject *path);

/* Sets the OSError of an errno for a path; `path` may be NULL, for what has none. `message` says
 * what is wrong where the errno alone would not; NULL: the errno's own text. */
RUNS_PYTHON void path_error(PyObject *path, int code, const char *message);

/* Opens a regular file of this user, for reading or for both, whose descriptor goes to *fd (-1
 * where there is none): no link is followed, and a pipe in its place is not waited for. The size of
 * the file, or -1 with an exception. */
RUNS_PYTHON int64_t open_private(PyObject *path, int flags, int *fd);

/* Whether another process has an exclusive lock on a file: a shared one is taken and given back.
 * Only the lock itself shows that nobody has it, and not a file system that fails, or a signal that
 * came in between. */
bool is_locked(int fd);

typedef enum {
    READ_WHOLE,  /* all bytes were read */
    READ_ENDS,   /* the file ends before */
    READ_FAILED, /* errno says why */
} ReadResult;

/* pread(), all of it. */
ReadResult read_at(int fd, uint64_t offset, void *bytes, size_t size);

#endif
