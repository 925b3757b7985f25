/* stack.h: how much of the C stack is left.
 *
 * Up to Python 3.11 a call from one Python function to another takes none of it, so a program may
 * set a recursion limit that its traced calls, which do, cannot keep. */
#ifndef FASTTRACE_STACK_H
#define FASTTRACE_STACK_H

#include "base/state.h"

/* Looks at the stack of this thread, and notes its room in the state for the next time. */
bool stack_look(CoreState *state);

/* Whether this thread has little of its C stack left; false where it is on a stack of another kind.
 */
static inline bool stack_is_low(CoreState *state)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    return UNLIKELY(here - state->stack_room.from >= state->stack_room.size) && stack_look(state);
}

/* Raises RecursionError, as Python does at its own limit. */
RUNS_PYTHON void stack_raise_low(void);

#endif
