/* stream.c: the steps of a traced generator.
 *
 * The wrapper in Python (_internal/spans/wrappers.py) is a generator itself and drives a Stream:
 *
 *     stream = traced._stream(args, kwargs)
 *     item = stream.send(None)
 *     while item is not stream:              # a Stream returns itself when the body has returned
 *         try: sent = yield item
 *         except BaseException as error: item = stream.throw(error)
 *         else: item = stream.send(sent)
 *     return stream.value                    # whatever is raised in between: stream.end(error)
 *
 * The span is current only while the body runs. Each item is encoded for its event;
 * without a reducer those bytes also serve the list of outputs, unless binary content in it became
 * attachments. A generator that is left early is thrown a GeneratorExit, like any other exception
 * that its body may handle; it ends the span, with the items so far. The garbage collector may be
 * the one that throws it, so the context is left alone then. */
#include "objects/stream.h"

#include "base/errors.h"
#include "base/getattr.h"
#include "base/python_side.h"
#include "base/stack.h"
#include "trace/span_end.h"
#include "trace/span_events.h"
#include "trace/span_values.h"
#include "value/encode.h"
#include "value/plain.h"

typedef struct {
    PyObject_HEAD CoreState *state;
    Current *opened; /* owned: current while the body runs; NULL where nothing is */
    Span *span;      /* borrowed from `opened`, while it is recorded and has not ended; else NULL */
    PyObject *iterator; /* owned: the generator or async generator */
    PyObject *reducer;  /* owned: a callable, or None */
    PyObject *items;    /* owned list, kept for the reducer only */
    PyObject *value;    /* owned: what the body returned */
    Buffer outputs;     /* encoded items, one after another */
    uint32_t count;
    bool closing;    /* a GeneratorExit was thrown in */
    bool stays;      /* in the context variable between steps: it could not be put back once */
    PyObject *token; /* owned: of the step of an async generator that is under way, or NULL */
} Stream;

PyObject *stream_new(CoreState *state, Current *opened, PyObject *iterator, PyObject *reducer)
{
    Stream *stream = PyObject_GC_New(Stream, state->types.stream);
    if (stream == NULL) {
        return NULL;
    }
    stream->state = state;
    Py_XINCREF((PyObject *)opened);
    stream->opened = opened;
    stream->span = as_span(state, opened);
    Py_INCREF(iterator);
    stream->iterator = iterator;
    Py_INCREF(reducer);
    stream->reducer = reducer;
    stream->items = NULL;
    stream->value = NULL;
    stream->outputs = (Buffer){0};
    stream->count = 0;
    stream->closing = false;
    stream->stays = false;
    stream->token = NULL;
    PyObject_GC_Track(stream);
    return (PyObject *)stream;
}

/* An item of fewer bytes has room in a buffer of outputs that is about to grow. */
#define ITEM_ROOM ((size_t)256)

/* Takes an item that is plain (plain.h), which is encoded where it stays; false for others. */
static bool take_plain_item(Stream *stream, PyObject *item)
{
    Buffer *outputs = &stream->outputs;
    bool payload = stream->reducer == Py_None;
    if (UNLIKELY(outputs->failed || stream->span == NULL)) {
        return false;
    }
    if (UNLIKELY(!buffer_reserve(outputs, ITEM_ROOM))) {
        outputs->failed = outputs->too_large = false; /* the item itself may have room */
        return false;
    }
    size_t start = outputs->len;
    size_t size = encode_plain(outputs->data + start, outputs->cap - start, item, payload);
    if (UNLIKELY(size == 0)) {
        PyErr_Clear();
        return false;
    }
    outputs->len += size;
    span_add_item(stream->span, stream->count++, outputs->data + start, size);
    return true;
}

static void take_item(Stream *stream, PyObject *item)
{
    CoreState *state = stream->state;
    if (stream->span == NULL) {
        return;
    }
    if (stream->reducer != Py_None) {
        PyObject *items = slot_list(&stream->items);
        if (items == NULL || PyList_Append(items, item) < 0) {
            swallow_exception(state);
        }
    }
    if (LIKELY(take_plain_item(stream, item))) {
        return;
    }
    if (UNLIKELY(stream->span == NULL)) { /* a finalizer has ended it */
        return;
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        value_has_no_room(state);
        return;
    }
    /* What becomes an attachment of the outputs stays whole in its event, as in MLflow. */
    size_t event = 0;
    if (stream->reducer != Py_None) {
        encode_value(state, out, item);
    }
    else if (UNLIKELY(span_encode_payload(stream->span, out, item, NULL))) {
        event = out->len;
        encode_value(state, out, item);
    }
    if (UNLIKELY(out->failed)) {
        value_has_no_room(state);
    }
    else if (stream->span != NULL) {
        span_add_item(stream->span, stream->count, out->data + event, out->len - event);
        buffer_append(&stream->outputs, out->data, event ? event : out->len);
        stream->count++;
    }
    scratch_release(state, out);
}

static void set_outputs(Stream *stream, Span *span)
{
    CoreState *state = stream->state;
    if (stream->reducer != Py_None && !is_interrupted(state)) {
        PyObject *items = slot_list(&stream->items);
        PyObject *reduced = items ? ask_hook(stream->reducer, items, NULL) : NULL;
        if (reduced != NULL) {
            if (reduced != Py_None) {
                span_set_payload(span, KEY_OUTPUTS, reduced);
            }
            Py_DECREF(reduced);
            return;
        }
        swallow_exception(state); /* the items themselves are the outputs, as in MLflow */
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        value_has_no_room(state);
        return;
    }
    wire_pack_array(out, stream->count);
    buffer_append(out, stream->outputs.data, stream->outputs.len);
    out->failed |= stream->outputs.failed;
    span_set_from(span, KEY_OUTPUTS, out);
    scratch_release(state, out);
}

/* Ends the span: with the items as outputs, or with the exception. Keeps a pending exception. */
static void end_stream(Stream *stream, PyObject *exception)
{
    Span *span = stream->span;
    PyObject *type, *value, *traceback;
    if (span == NULL) {
        return;
    }
    stream->span = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    if (exception != NULL && PyErr_GivenExceptionMatches(exception, PyExc_Exception)) {
        span_record_exception(span, exception, false);
    }
    else {
        set_outputs(stream, span);
    }
    span_end(span, 0);
    PyErr_Restore(type, value, traceback);
}

static void end_with_pending(Stream *stream)
{
    PyObject *type, *value, *traceback;
    take_exception(&type, &value, &traceback);
    end_stream(stream, value);
    PyErr_Restore(type, value, traceback);
}

/* ---- a step of the body ---- */

/* The span that was current before the token's activation, as a new reference; NULL for none. One
 * that was left behind itself is passed over, so that no chain of them grows. */
static Current *current_before(const CoreState *state, PyObject *token)
{
    PyObject *value = attribute_named(token, "old_value");
    if (value == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (!is_current(state, value)) {
        Py_DECREF(value);
        return NULL;
    }
    Current *before = (Current *)value;
    if (before->left_behind) {
        before = current_around(before);
        Py_XINCREF((PyObject *)before);
        Py_DECREF(value);
    }
    return before;
}

/* Whether the chain of what is around `current` leads to `other`. */
static bool is_inside(const Current *current, const Current *other)
{
    while (current != NULL && current != other) {
        current = current->outer;
    }
    return current != NULL;
}

/* Notes what is to be current instead, where the span stays in the context variable after a step:
 * what was before the step. Generators that drive one another may each have been current before the
 * other: then the span keeps what it knows. */
static void note_before(Stream *stream, PyObject *token)
{
    Current *opened = stream->opened, *before = current_before(stream->state, token);
    if (is_inside(before, opened)) {
        Py_DECREF((PyObject *)before);
        return;
    }
    PyObject *outer = (PyObject *)opened->outer;
    opened->outer = before;
    Py_XDECREF(outer);
}

/* Makes the span current for a step; the token is the caller's, NULL where it could not be made. */
static PyObject *enter_step(Stream *stream)
{
    if (stream->opened == NULL) {
        return NULL;
    }
    PyObject *token = context_enter(stream->state, (PyObject *)stream->opened);
    stream->opened->left_behind = stream->closing || token == NULL;
    stream->stays |= token == NULL; /* perhaps: see current_activate() */
    return token;
}

/* Ends a step that raised nothing; takes the token over. */
static void leave_step(Stream *stream, PyObject *token)
{
    if (token == NULL) {
        return;
    }
    Py_INCREF(token);
    if (UNLIKELY(!context_leave(stream->state, token))) {
        note_before(stream, token);
        stream->stays = true;
    }
    if (UNLIKELY(stream->stays)) {
        stream->opened->left_behind = true;
    }
    Py_DECREF(token);
}

/* Ends a step that may have raised; takes the token over. Keeps a pending exception. */
static void leave_step_with_pending(Stream *stream, PyObject *token)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    leave_step(stream, token);
    PyErr_Restore(type, value, traceback);
}

/* An item, whose reference it takes over, on its way to the program. Where the program is
 * interrupted instead, the span ends with that, as if the body had raised it. */
static PyObject *hand_out(Stream *stream, PyObject *item)
{
    take_item(stream, item);
    if (raise_interruption(stream->state)) {
        Py_CLEAR(item);
        end_with_pending(stream);
    }
    return leave_core(stream->state, item);
}

static PyObject *returned(Stream *stream, PyObject *value)
{
    set_owned(&stream->value, value);
    end_stream(stream, NULL);
    Py_INCREF(stream);
    return leave_core(stream->state, (PyObject *)stream);
}

/* Whether a step can be made; otherwise the span has ended with the exception that is set. */
static bool can_step(Stream *stream)
{
    if (LIKELY(stream->iterator != NULL && !stack_is_low(stream->state))) {
        return true;
    }
    if (stream->iterator == NULL) { /* a finalizer uses what is being collected with it */
        PyErr_SetString(PyExc_RuntimeError,
                        "the garbage collector has released the generator that is traced");
    }
    else {
        stack_raise_low();
    }
    end_with_pending(stream);
    return false;
}

static PyObject *stream_send(Stream *stream, PyObject *sent)
{
    PyObject *result;
    if (!can_step(stream)) {
        return leave_core(stream->state, NULL);
    }
    PyObject *token = enter_step(stream);
    PySendResult step = PyIter_Send(stream->iterator, sent, &result);
    if (step == PYGEN_ERROR) {
        leave_step_with_pending(stream, token);
        end_with_pending(stream);
        return leave_core(stream->state, NULL);
    }
    leave_step(stream, token);
    return step == PYGEN_RETURN ? returned(stream, result) : hand_out(stream, result);
}

/* The generator is being closed, perhaps by the garbage collector, where the context must not be
 * touched: its span is left behind. If it is closed in the middle of a step of an async generator,
 * it stays in the context variable, and context_current() looks past it to what was current before.
 */
static void close_where_it_stands(Stream *stream)
{
    PyObject *token = stream->token;
    stream->closing = true;
    stream->token = NULL;
    if (stream->opened != NULL) {
        if (token != NULL) {
            note_before(stream, token);
        }
        current_leave_behind(stream->opened);
    }
    Py_XDECREF(token);
}

/* Takes what the body returned out of the pending StopIteration. NULL with an exception. */
static PyObject *take_returned(void)
{
    PyObject *type, *value, *traceback;
    take_exception(&type, &value, &traceback);
    PyObject *result = attribute_named(value, "value");
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result;
}

static PyObject *stream_throw(Stream *stream, PyObject *exception)
{
    PyObject *token = NULL;
    if (!can_step(stream)) {
        return leave_core(stream->state, NULL);
    }
    bool closing = PyErr_GivenExceptionMatches(exception, PyExc_GeneratorExit);
    if (closing) {
        close_where_it_stands(stream);
    }
    else {
        token = enter_step(stream);
    }
    PyObject *result = call_method(stream->iterator, "throw", exception);
    leave_step_with_pending(stream, token);
    if (result != NULL) {
        result = hand_out(stream, result);
        if (closing) {
            end_stream(stream, NULL); /* the body goes on, but its items have no taker */
        }
        return leave_core(stream->state, result);
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        end_with_pending(stream);
        return leave_core(stream->state, NULL);
    }
    PyObject *body_value = take_returned();
    return body_value ? returned(stream, body_value) : NULL;
}

static PyObject *stream_enter(Stream *stream, PyObject *unused)
{
    (void)unused;
    if (!can_step(stream)) {
        return leave_core(stream->state, NULL);
    }
    set_owned(&stream->token, enter_step(stream));
    return leave_core_with_none(stream->state);
}

static PyObject *stream_leave(Stream *stream, PyObject *unused)
{
    (void)unused;
    PyObject *token = stream->token;
    stream->token = NULL;
    leave_step(stream, token);
    return leave_core_with_none(stream->state);
}

static PyObject *stream_abandon(Stream *stream, PyObject *unused)
{
    (void)unused;
    close_where_it_stands(stream);
    Py_RETURN_NONE;
}

static PyObject *stream_item(Stream *stream, PyObject *item)
{
    take_item(stream, item);
    if (raise_interruption(stream->state)) {
        end_with_pending(stream);
        return leave_core(stream->state, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *stream_end(Stream *stream, PyObject *exception)
{
    end_stream(stream, exception == Py_None ? NULL : exception);
    return leave_core_with_none(stream->state);
}

static PyObject *stream_get_iterator(Stream *stream, void *unused)
{
    (void)unused;
    PyObject *iterator = stream->iterator ? stream->iterator : Py_None;
    Py_INCREF(iterator);
    return iterator;
}

static PyObject *stream_get_value(Stream *stream, void *unused)
{
    (void)unused;
    PyObject *value = stream->value ? stream->value : Py_None;
    Py_INCREF(value);
    return value;
}

static int stream_traverse(Stream *stream, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(stream));
    Py_VISIT(stream->iterator);
    Py_VISIT(stream->reducer);
    Py_VISIT(stream->items);
    Py_VISIT(stream->value);
    Py_VISIT(stream->token);
    Py_VISIT((PyObject *)stream->opened);
    return 0;
}

static int stream_clear(Stream *stream)
{
    Py_CLEAR(stream->iterator);
    Py_CLEAR(stream->reducer);
    Py_CLEAR(stream->items);
    Py_CLEAR(stream->value);
    Py_CLEAR(stream->token);
    return 0;
}

static void stream_dealloc(Stream *stream)
{
    PyTypeObject *type = Py_TYPE(stream);
    PyObject_GC_UnTrack(stream);
    if (UNLIKELY(stream->span != NULL)) { /* its wrapper was left before it could end it */
        current_leave_behind(stream->opened);
        abandon(stream->state, (PyObject *)stream->span);
    }
    stream_clear(stream);
    Py_XDECREF((PyObject *)stream->opened);
    buffer_free(&stream->outputs);
    PyObject_GC_Del(stream);
    Py_DECREF(type);
}

static PyMethodDef stream_methods[] = {
    {"send", (PyCFunction)stream_send, METH_O,
     "send($self, value, /)\n--\n\nThe next item for a value sent in; the stream itself when the "
     "body has returned."},
    {"throw", (PyCFunction)stream_throw, METH_O,
     "throw($self, error, /)\n--\n\nThe next item for an exception thrown in; the stream itself "
     "when the body has returned."},
    {"enter", (PyCFunction)stream_enter, METH_NOARGS,
     "enter($self, /)\n--\n\nMake the span current for a step of an async generator."},
    {"leave", (PyCFunction)stream_leave, METH_NOARGS,
     "leave($self, /)\n--\n\nEnd such a step, if one is under way."},
    {"abandon", (PyCFunction)stream_abandon, METH_NOARGS,
     "abandon($self, /)\n--\n\nNote that the generator is being closed, where the context "
     "must not be touched."},
    {"item", (PyCFunction)stream_item, METH_O, "item($self, item, /)\n--\n\nRecord an item."},
    {"end", (PyCFunction)stream_end, METH_O,
     "end($self, error, /)\n--\n\nEnd the span, with an exception or None."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
    {"iterator", (getter)stream_get_iterator, NULL, "The generator or async generator.", NULL},
    {"value", (getter)stream_get_value, NULL, "What the body returned.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
    {Py_tp_doc,
     "The steps of a traced generator. A step returns the stream itself when the body has "
     "ended."},
    {0, NULL},
};

static PyType_Spec stream_spec = {
    .name = "mlflow_fasttrace._core.Stream",
    .basicsize = sizeof(Stream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = stream_slots,
};

int stream_add_type(PyObject *module, CoreState *state)
{
    return state_add_type(module, &stream_spec, &state->types.stream, "Stream");
}
