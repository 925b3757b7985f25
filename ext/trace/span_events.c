#include "trace/span_events.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/python_side.h"
#include "trace/span_values.h"
#include "value/encode.h"

static void event_head(Buffer *out, const char *name, size_t size, uint64_t time_ns)
{
    wire_pack_array(out, 3);
    encode_text(out, name, size);
    wire_pack_uint64(out, time_ns);
}

static int stored_log_level(const Span *span)
{
    Reader value;
    if (span_find(span, KEY_LOG_LEVEL, &value)) {
        Token level = reader_next(&value);
        if (level.kind == TOKEN_UINT && level.u < 1000) {
            return (int)level.u;
        }
    }
    return -1;
}

/* A span with an exception event is at least of level ERROR. */
static void raise_log_level(Span *span)
{
    if (stored_log_level(span) < 40) {
        char level = 40;
        span_set_encoded(span, KEY_LOG_LEVEL, &level, 1);
    }
}

bool span_append_event(Span *span, const Buffer *event, bool is_exception)
{
    if (event->failed || span->end_ns != 0) {
        return !event->failed;
    }
    buffer_append(&span->events, event->data, event->len);
    if (span->events.failed) {
        span->events.failed = false;
        return false;
    }
    span->event_count++;
    if (is_exception && LIKELY(span->state->mlflow >= MLFLOW(3, 13))) {
        raise_log_level(span);
    }
    return true;
}

/* Writes a number's decimal digits; gives what lies behind. */
static char *write_decimal(char *at, uint32_t number)
{
    char digits[10];
    size_t count = 0;
    do {
        digits[sizeof digits - ++count] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    memcpy(at, digits + sizeof digits - count, count);
    return at + count;
}

/* An item's event is its value and no more than this. */
#define ITEM_EVENT_MAX 96

void span_add_item(Span *span, uint32_t index, const char *item, size_t size)
{
    static const char prefix[] = "mlflow.chunk.item.", key[] = "mlflow.chunk.value";
    char name[WIRE_FIXSTR_END]; /* the prefix and ten digits */
    Buffer *events = &span->events;
    if (UNLIKELY(span->end_ns != 0)) {
        return;
    }
    if (UNLIKELY(!buffer_reserve(events, ITEM_EVENT_MAX + size))) {
        events->failed = events->too_large = false;
        value_has_no_room(span->state);
        return;
    }
    memcpy(name, prefix, sizeof prefix - 1);
    size_t name_size = (size_t)(write_decimal(name + sizeof prefix - 1, index) - name);
    char *at = events->data + events->len;
    put_array(&at, 3);
    at = put_text(at, name, name_size);
    put_uint64(&at, clock_ns());
    put_map(&at, 1);
    at = put_text(at, key, sizeof key - 1);
    put_ext(&at, size, EXT_JSON_TEXT);
    memcpy(at, item, size);
    events->len = (size_t)(at + size - events->data);
    span->event_count++;
}

void span_set_status(Span *span, int status, PyObject *message)
{
    if (span->end_ns != 0 || span->status == STATUS_OK || status == STATUS_UNSET) {
        return;
    }
    span->status = (unsigned char)status;
    if (status != STATUS_ERROR || message == NULL || !PyUnicode_Check(message) ||
        PyUnicode_GetLength(message) == 0) {
        message = NULL;
    }
    Py_XINCREF(message);
    set_owned(&span->status_message, message);
}

void span_record_exception(Span *span, PyObject *exception, bool with_message)
{
    CoreState *state = span->state;
    uint64_t now = clock_ns();
    PyObject *hook = is_interrupted(state) ? NULL : state->hooks.format_exception;
    PyObject *parts = hook != NULL ? ask_hook(hook, exception, NULL) : NULL;
    PyObject *message, *type_name, *stack_trace, *description;

    if (parts == NULL ||
        !PyArg_ParseTuple(parts, "UUUU", &message, &type_name, &stack_trace, &description)) {
        swallow_exception(state);
        Py_XDECREF(parts);
        span_set_status(span, STATUS_ERROR, NULL);
        return;
    }
    Buffer *out = scratch_acquire(state);
    if (out != NULL) {
        event_head(out, SIZED("exception"), now);
        wire_pack_map(out, 3);
        encode_text(out, SIZED("exception.message"));
        encode_str(out, message);
        encode_text(out, SIZED("exception.type"));
        encode_str(out, type_name);
        encode_text(out, SIZED("exception.stacktrace"));
        encode_str(out, stack_trace);
        if (UNLIKELY(!span_append_event(span, out, true))) {
            value_has_no_room(state);
        }
        scratch_release(state, out);
    }
    span_set_status(span, STATUS_ERROR, with_message ? description : NULL);
    Py_DECREF(parts);
}

void span_record_pending(Span *span)
{
    PyObject *type, *value, *traceback;
    take_exception(&type, &value, &traceback);
    if (value != NULL && PyErr_GivenExceptionMatches(type, PyExc_Exception)) {
        span_record_exception(span, value, true);
    }
    PyErr_Restore(type, value, traceback);
}
