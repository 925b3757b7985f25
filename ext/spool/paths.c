#include "spool/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int optional_path(PyObject *argument, void *result)
{
    if (argument == Py_None) {
        *(PyObject **)result = NULL;
        return 1;
    }
    return PyUnicode_FSConverter(argument, result);
}

const char *path_bytes(PyObject *path) { return path != NULL ? PyBytes_AsString(path) : NULL; }

void path_error(PyObject *path, int code, const char *message)
{
    PyObject *name = path != NULL ? PyUnicode_DecodeFSDefault(PyBytes_AsString(path)) : NULL;
    PyObject *error = NULL;
    if (path != NULL && name == NULL) {
        return;
    }
    if (message == NULL) {
        message = strerror(code);
    }
    /* OSError makes itself a FileNotFoundError and the like, by the errno. */
    error = name != NULL ? PyObject_CallFunction(PyExc_OSError, "isO", code, message, name)
                         : PyObject_CallFunction(PyExc_OSError, "is", code, message);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    Py_XDECREF(error);
    Py_XDECREF(name);
}

int64_t open_private(PyObject *path, int flags, int *fd)
{
    struct stat info;
    *fd = open(path_bytes(path), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, &info) != 0) {
        path_error(path, errno, NULL);
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        path_error(path, EPERM, "it is not a file");
        return -1;
    }
    if (info.st_uid != geteuid()) {
        path_error(path, EPERM, "it is another user's");
        return -1;
    }
    return (int64_t)info.st_size;
}

bool is_locked(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) != 0) {
        return true;
    }
    flock(fd, LOCK_UN);
    return false;
}

ReadResult read_at(int fd, uint64_t offset, void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        ssize_t n = pread(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return READ_FAILED;
        }
        if (n == 0) {
            return READ_ENDS;
        }
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return READ_WHOLE;
}
