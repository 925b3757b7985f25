/* stack.h: how much of the C stack is left.
 *
 * Up to Python 3.11 a call from one Python function to another takes none of it, so a program may
 * set a recursion limit that its traced calls, which do, cannot keep. */
#ifndef FASTTRACE_STACK_H
#define FASTTRACE_STACK_H

#include "base/compat.h"

/* Whether this thread has little of its C stack left; false where it is on a stack of another kind.
 */
bool stack_is_low(void);

/* Raises RecursionError, as Python does at its own limit. */
RUNS_PYTHON void stack_raise_low(void);

#endif
