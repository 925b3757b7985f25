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
 *     return stream.value
 *
 * The span is current only while the body runs. Each item is encoded for its event;
 * without a reducer those bytes also serve the list of outputs, unless binary content in it became
 * attachments. A generator that is left early is thrown a GeneratorExit, like any other exception
 * that its body may handle; it ends the span, with the items so far. The garbage collector may be
 * the one that throws it, so the context is left alone then. */
#include "objects/stream.h"

#include "base/errors.h"
#include "trace/span_end.h"
#include "trace/span_events.h"
#include "trace/span_values.h"
#include "value/encode.h"

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
    PyObject_GC_Track(stream);
    return (PyObject *)stream;
}

static void take_item(Stream *stream, PyObject *item)
{
    CoreState *state = stream->state;
    if (stream->span == NULL) {
        return;
    }
    if (stream->reducer != Py_None) {
        if (stream->items == NULL) {
            stream->items = PyList_New(0);
        }
        if (stream->items == NULL || PyList_Append(stream->items, item) < 0) {
            swallow_exception();
        }
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
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
    if (!out->failed && stream->span != NULL) {
        span_add_item(stream->span, stream->count, out->data + event, out->len - event);
        buffer_append(&stream->outputs, out->data, event ? event : out->len);
        stream->count++;
    }
    scratch_release(state, out);
}

static void set_outputs(Stream *stream, Span *span)
{
    CoreState *state = stream->state;
    if (stream->reducer != Py_None) {
        PyObject *items = stream->items;
        PyObject *made = items == NULL ? PyList_New(0) : NULL;
        PyObject *reduced =
            PyObject_CallFunctionObjArgs(stream->reducer, items ? items : made, NULL);
        Py_XDECREF(made);
        if (reduced != NULL) {
            if (reduced != Py_None) {
                span_set_payload(span, KEY_OUTPUTS, reduced);
            }
            Py_DECREF(reduced);
            return;
        }
        swallow_exception(); /* the items themselves are the outputs, as in MLflow */
    }
    Buffer *out = scratch_acquire(state);
    if (out == NULL) {
        return;
    }
    wire_pack_array(out, stream->count);
    buffer_append(out, stream->outputs.data, stream->outputs.len);
    if (!out->failed && !stream->outputs.failed) {
        span_set_encoded(span, KEY_OUTPUTS, out->data, out->len);
    }
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

static PyObject *returned(Stream *stream, PyObject *value)
{
    set_owned(&stream->value, value);
    end_stream(stream, NULL);
    Py_INCREF(stream);
    return (PyObject *)stream;
}

static PyObject *stream_send(Stream *stream, PyObject *sent)
{
    PyObject *result, *token = NULL;

    if (stream->opened != NULL) {
        token = context_enter(stream->state, (PyObject *)stream->opened);
    }
    PySendResult step = PyIter_Send(stream->iterator, sent, &result);
    if (step == PYGEN_ERROR) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        context_leave(stream->state, token);
        PyErr_Restore(type, value, traceback);
        end_with_pending(stream);
        return NULL;
    }
    context_leave(stream->state, token);
    if (step == PYGEN_RETURN) {
        return returned(stream, result);
    }
    take_item(stream, result);
    return result;
}

/* Takes what the body returned out of the pending StopIteration. NULL with an exception. */
static PyObject *take_returned(void)
{
    PyObject *type, *value, *traceback;
    take_exception(&type, &value, &traceback);
    PyObject *result = PyObject_GetAttrString(value, "value");
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result;
}

static PyObject *stream_throw(Stream *stream, PyObject *exception)
{
    PyObject *type, *value, *traceback, *token = NULL;
    bool closing = PyErr_GivenExceptionMatches(exception, PyExc_GeneratorExit);

    if (stream->opened != NULL && closing) {
        current_abandon(stream->opened); /* the end of the span sets no context variable either */
    }
    else if (stream->opened != NULL) {
        token = context_enter(stream->state, (PyObject *)stream->opened);
    }
    PyObject *result = PyObject_CallMethod(stream->iterator, "throw", "O", exception);
    PyErr_Fetch(&type, &value, &traceback);
    context_leave(stream->state, token);
    PyErr_Restore(type, value, traceback);
    if (result != NULL) {
        take_item(stream, result);
        if (closing) {
            end_stream(stream, NULL); /* the body goes on, but its items have no taker */
        }
        return result;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        end_with_pending(stream);
        return NULL;
    }
    PyObject *body_value = take_returned();
    return body_value ? returned(stream, body_value) : NULL;
}

static PyObject *stream_enter(Stream *stream, PyObject *unused)
{
    (void)unused;
    PyObject *token = NULL;
    if (stream->opened != NULL) {
        token = context_enter(stream->state, (PyObject *)stream->opened);
    }
    if (token == NULL) {
        Py_RETURN_NONE;
    }
    return token;
}

static PyObject *stream_leave(Stream *stream, PyObject *token)
{
    if (token != Py_None) {
        Py_INCREF(token);
        context_leave(stream->state, token);
    }
    Py_RETURN_NONE;
}

/* The span that was current before the token's activation, borrowed from the token; NULL for none.
 * Spans that were abandoned themselves are passed over, so that no chain of them grows. */
static Current *current_before(const CoreState *state, PyObject *token)
{
    PyObject *value = PyObject_GetAttrString(token, "old_value");
    if (value == NULL) {
        swallow_exception();
        return NULL;
    }
    Py_DECREF(value); /* the token keeps it */
    if (!is_current(state, value)) {
        return NULL;
    }
    Current *before = (Current *)value;
    while (before != NULL && before->abandoned) {
        before = before->outer;
    }
    return before;
}

/* The generator is being closed, perhaps by the garbage collector, where the context must not be
 * touched. If it is closed in the middle of a step, its span stays in the context variable, and
 * context_current() looks past it to what was current before. */
static PyObject *stream_abandon(Stream *stream, PyObject *token)
{
    Current *opened = stream->opened;
    if (opened == NULL) {
        Py_RETURN_NONE;
    }
    if (token != Py_None) {
        Current *before = current_before(stream->state, token);
        if (before != opened) {
            Current *outer = opened->outer;
            Py_XINCREF((PyObject *)before);
            opened->outer = before;
            Py_XDECREF((PyObject *)outer);
        }
    }
    current_abandon(opened);
    Py_RETURN_NONE;
}

static PyObject *stream_item(Stream *stream, PyObject *item)
{
    take_item(stream, item);
    Py_RETURN_NONE;
}

static PyObject *stream_end(Stream *stream, PyObject *exception)
{
    end_stream(stream, exception == Py_None ? NULL : exception);
    Py_RETURN_NONE;
}

static PyObject *stream_get_iterator(Stream *stream, void *unused)
{
    (void)unused;
    Py_INCREF(stream->iterator);
    return stream->iterator;
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
    return 0;
}

static int stream_clear(Stream *stream)
{
    Py_CLEAR(stream->iterator);
    Py_CLEAR(stream->reducer);
    Py_CLEAR(stream->items);
    Py_CLEAR(stream->value);
    return 0;
}

static void stream_dealloc(Stream *stream)
{
    PyTypeObject *type = Py_TYPE(stream);
    PyObject_GC_UnTrack(stream);
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
     "enter($self, /)\n--\n\nMake the span current for a step: a token, or None."},
    {"leave", (PyCFunction)stream_leave, METH_O, "leave($self, token, /)\n--\n\nEnd such a step."},
    {"abandon", (PyCFunction)stream_abandon, METH_O,
     "abandon($self, token, /)\n--\n\nNote that the generator is being closed, where the context "
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
