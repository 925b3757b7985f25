/* encode.h: Python object -> msgpack, as json.dumps would see it. See encode.c. */
#ifndef FASTTRACE_ENCODE_H
#define FASTTRACE_ENCODE_H

#include "base/state.h"
#include "value/wire.h"

typedef enum {
    ENCODED,
    NEEDS_REPR,  /* json.dumps would have raised: the whole value becomes its repr() */
    HAS_CONTENT, /* binary content in it may have to become attachments */
} EncodeResult;

/* Appends the value, or nothing and NEEDS_REPR. Never leaves an exception set. Runs Python code
 * (the hook), so the GIL may change hands: `out` must be the caller's alone. */
RUNS_PYTHON EncodeResult encode_try(CoreState *state, Buffer *out, PyObject *value);

/* Appends the value of inputs or outputs, or nothing: NEEDS_REPR, or HAS_CONTENT where it may hold
 * binary content (the hook extract_attachments knows). */
RUNS_PYTHON EncodeResult encode_payload(CoreState *state, Buffer *out, PyObject *value);

/* Appends the repr of a value, which NEEDS_REPR asks for. `repr`: a callable that makes the text,
 * or NULL for repr() itself. */
RUNS_PYTHON void encode_repr(CoreState *state, Buffer *out, PyObject *value, PyObject *repr);

/* Appends the value, or its repr where NEEDS_REPR says so: always one value (out of memory shows in
 * out->failed). */
RUNS_PYTHON void encode_value(CoreState *state, Buffer *out, PyObject *value);

/* One encoded value as a new bytes object; NULL with a MemoryError. */
RUNS_PYTHON PyObject *encode_to_bytes(CoreState *state, PyObject *value);

/* Appends a str as such (ext EXT_SURROGATES where UTF-8 cannot hold it). */
RUNS_PYTHON void encode_str(Buffer *out, PyObject *text);

/* The bytes that stand for a text that UTF-8 cannot hold (EXT_SURROGATES), as a new bytes object;
 * NULL, without an exception, where there is no memory. */
RUNS_PYTHON PyObject *encode_surrogates(PyObject *text);

/* Appends the bytes of a text in UTF-8 as str. */
static inline __attribute__((always_inline)) void encode_text(Buffer *out, const char *text,
                                                              size_t size)
{
    if (LIKELY(buffer_reserve(out, WIRE_HEAD_MAX + size))) {
        out->len = (size_t)(put_text(out->data + out->len, text, size) - out->data);
    }
}

/* The arguments of encode_text() for a string literal. */
#define SIZED(literal) (literal), (sizeof(literal) - 1)

#endif
