#include "base/stack.h"

/* What must be left for the hooks of a call, and for code that looks at no limit: an eighth of the
 * stack, and no more than this. */
#define MOST_LEFT_BYTES ((uintptr_t)256 << 10)

/* The lowest address of this thread's stack, and the bytes above it that are to be left. Both are 0
 * until they are first asked for. */
static _Thread_local uintptr_t stack_lowest, stack_left;

static void find_stack(void)
{
    void *lowest = NULL;
    size_t size = 0;
    if (compat_stack_of_thread(&lowest, &size) != 0) {
        size = 0; /* nothing is known: nothing is low */
    }
    stack_lowest = (uintptr_t)lowest;
    stack_left = size / 8 < MOST_LEFT_BYTES ? size / 8 : MOST_LEFT_BYTES;
    if (stack_lowest == 0) {
        stack_lowest = UINTPTR_MAX;
    }
}

bool stack_is_low(void)
{
    if (UNLIKELY(stack_lowest == 0)) {
        find_stack();
    }
    return (uintptr_t)__builtin_frame_address(0) - stack_lowest < stack_left;
}

void stack_raise_low(void)
{
    PyErr_SetString(PyExc_RecursionError,
                    "maximum recursion depth exceeded: calls of traced functions have used up the "
                    "C stack (see threading.stack_size and ulimit -s)");
}
