"""What is known of the functions of CPython 3.10 to 3.13, by their names, and of a few of this project's."""

from __future__ import annotations

import re


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---- which run Python code ----

#: These take a reference, and give their argument back or nothing.
TAKES_REFERENCE = _names("Py_INCREF Py_XINCREF Py_NewRef Py_XNewRef")

#: The functions that run no Python code; all others count. Before 3.12 the allocation of an object that the garbage
#: collector tracks can start a collection, and so finalizers and other threads. To release an object, an
#: exception too, can run its finalizer. A function that fails makes an exception; who goes on after that calls
#: PyErr_Clear(), which counts.
NEVER_RUNS = TAKES_REFERENCE.union(
    # These read the header, the size, a flag, an item or the bytes of an object.
    _names("""
        Py_TYPE Py_SIZE Py_REFCNT Py_IS_TYPE Py_Is PyType_HasFeature PyType_GetFlags PyType_Check PyType_IsSubtype
        PyObject_TypeCheck PyExceptionClass_Check PyType_GetSlot PyType_GetModuleState PyModule_GetState
        PyTuple_Size PyTuple_GetItem PyList_Size PyList_GetItem PyDict_Size PyDict_Next PyBytes_Size
        PyBytes_AsString PyBytes_AsStringAndSize PyUnicode_GetLength PyUnicode_AsUTF8AndSize PyUnicode_Compare
        PyUnicode_CompareWithASCIIString PyLong_AsUnsignedLongLong PyImport_GetModuleDict
    """),
    # These compare the type of an exception by its bases, or move the pending one, which stays alive.
    _names("PyErr_Occurred PyErr_ExceptionMatches PyErr_GivenExceptionMatches PyErr_Fetch"),
    # These are asked of ints and floats: of another object they would call a method.
    _names("PyLong_AsLongLongAndOverflow PyFloat_AsDouble"),
    # These make objects that the collector does not track.
    _names("""
        PyUnicode_FromString PyUnicode_FromStringAndSize PyUnicode_InternFromString PyUnicode_InternInPlace
        PyBytes_FromStringAndSize PyBool_FromLong PyFloat_FromDouble PyLong_FromLong PyLong_FromLongLong
        PyLong_FromSsize_t PyLong_FromUnsignedLongLong _PyObject_New
    """),
    # These move pointers inside a list, or make its array longer.
    _names("PyList_Append PyList_Reverse"),
    # These allocate or free memory, tell the collector of an object, or set a flag for later.
    _names("""
        PyObject_Free PyObject_GC_Del PyObject_GC_Track PyObject_GC_UnTrack PyObject_GC_IsTracked PyMem_Malloc PyMem_Free
        PyOS_double_to_string PyErr_SetInterrupt PyModuleDef_Init
    """),
)
#: Formats of PyArg_ParseTuple() that only check types. Others call __index__, __bool__, a buffer's functions or,
#: in parentheses, __getitem__.
PLAIN_FORMAT = re.compile(r"(?:[OUSY]!?|[sz](?![#*])|[|])*(?:[:;].*)?")
#: Types of pointers to functions that run no Python code: what a traverse function is given, and what empties a buffer.
PLAIN_POINTERS = _names("visitproc SinkDrain")
#: Results of these are released without running Python code: they are of no subclass.
PLAIN_RESULT = re.compile(r"PyUnicode_|PyBytes_From|PyLong_From|PyFloat_From|PyBool_")

# ---- what they do with references ----

#: These hold their arguments, or are through with them, before they run Python code.
HOLDS_FIRST = _names("PyDict_SetItemString PyErr_SetObject")
#: The arguments whose references a function takes over.
TAKES_OVER = {
    "PyList_SetItem": (2,),
    "PyTuple_SetItem": (2,),
    "PyErr_Restore": (0, 1, 2),
    "set_owned": (1,),
}
#: Structures (libclang's identities end so) that outlive what points to them: the module's state.
LASTING = ("@CoreState",)
#: The first argument, which cannot change, holds the result, or the output.
FROM_CONSTANT = _names("""
    PyTuple_GetItem PyBytes_AsString PyUnicode_AsUTF8AndSize PyBytes_AsStringAndSize PyArg_ParseTuple
    PyArg_ParseTupleAndKeywords
""")
#: The first argument, a container that can change, holds the result, or the output.
FROM_CONTAINER = _names("""
    PyList_GetItem PyDict_GetItem PyDict_GetItemString PyDict_GetItemWithError PyDict_Next
""")
#: Nobody else reaches the result.
PRIVATE_RESULT = _names("""
    PyList_New PyDict_New PyDict_Copy PyDict_Items PyList_GetSlice malloc calloc realloc array_grow
    scratch_acquire
""")
