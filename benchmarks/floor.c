/* floor.c: what a traced call costs at least: a C callable that reads two clocks, makes an id and
 * switches a context variable around the call it wraps. Built by floor.py, for the benchmark only. */
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include <stdint.h>
#include <time.h>

typedef struct {
    PyObject_HEAD
    PyObject *function, *set, *reset;
    uint64_t id, start_ns, end_ns;
} Floor;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static PyObject *floor_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *function, *set, *reset;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "OOO", &function, &set, &reset)) {
        return NULL;
    }
    Floor *self = PyObject_New(Floor, type);
    if (self == NULL) {
        return NULL;
    }
    Py_INCREF(function);
    Py_INCREF(set);
    Py_INCREF(reset);
    self->function = function;
    self->set = set;
    self->reset = reset;
    self->id = 88172645463325252u;
    return (PyObject *)self;
}

static void floor_dealloc(Floor *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(self->function);
    Py_DECREF(self->set);
    Py_DECREF(self->reset);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *floor_call(Floor *self, PyObject *args, PyObject *kwargs)
{
    self->start_ns = now_ns();
    self->id ^= self->id << 13;
    self->id ^= self->id >> 7;
    self->id ^= self->id << 17;
    PyObject *token = PyObject_CallFunctionObjArgs(self->set, self, NULL);
    if (token == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Call(self->function, args, kwargs);
    PyObject *done = PyObject_CallFunctionObjArgs(self->reset, token, NULL);
    Py_DECREF(token);
    Py_XDECREF(done);
    if (done == NULL) {
        Py_CLEAR(result);
    }
    self->end_ns = now_ns();
    return result;
}

static PyType_Slot slots[] = {
    {Py_tp_new, floor_new},
    {Py_tp_dealloc, floor_dealloc},
    {Py_tp_call, floor_call},
    {0, NULL},
};

static PyType_Spec spec = {"floor_core.Floor", sizeof(Floor), 0, Py_TPFLAGS_DEFAULT, slots};

static int exec_module(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int result = type ? PyModule_AddObjectRef(module, "Floor", type) : -1;
    Py_XDECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, exec_module}, {0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "floor_core",
                                    .m_slots = module_slots};

PyMODINIT_FUNC PyInit_floor_core(void) { return PyModuleDef_Init(&module); }
