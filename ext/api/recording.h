/* recording.h: the functions of mlflow_fasttrace._core for the program. */
#ifndef FASTTRACE_API_RECORDING_H
#define FASTTRACE_API_RECORDING_H

#include "base/compat.h"

/* Adds them to the module; 0, or -1 with an exception. */
RUNS_PYTHON int recording_add_functions(PyObject *module);

#endif
