/* delivery.h: the functions of mlflow_fasttrace._core for the sender and for readers of a spool. */
#ifndef FASTTRACE_API_DELIVERY_H
#define FASTTRACE_API_DELIVERY_H

#include "base/compat.h"

/* Adds them to the module; 0, or -1 with an exception. */
RUNS_PYTHON int delivery_add_functions(PyObject *module);

#endif
