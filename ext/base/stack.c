#include "base/stack.h"

/* What must be left for the hooks of a call, and for code that looks at no limit: an eighth of the
 * stack, between these, and never more than a half. The text of a traceback takes the most: Python
 * 3.12 parses lines of the program for it, with 17 KiB in one function of its tokenizer. */
#define MOST_LEFT_BYTES ((uintptr_t)256 << 10)
#define LEAST_LEFT_BYTES ((uintptr_t)64 << 10)

/* Of this thread: the addresses that have enough of its stack below them, and how much that is.
 * Size and left are 0 until they are first asked for, and where nothing is known. */
static _Thread_local StackRoom room;
static _Thread_local uintptr_t left;
static _Thread_local bool known;

static void find_room(void)
{
    void *lowest = NULL;
    size_t size = 0;
    if (compat_stack_of_thread(&lowest, &size) != 0) {
        size = 0;
    }
    left = size / 8 < MOST_LEFT_BYTES ? size / 8 : MOST_LEFT_BYTES;
    left = left < LEAST_LEFT_BYTES ? LEAST_LEFT_BYTES : left;
    left = left > size / 2 ? size / 2 : left;
    room = (StackRoom){.from = (uintptr_t)lowest + left, .size = size - left};
    known = true;
}

bool stack_look(CoreState *state)
{
    if (!known) {
        find_room();
    }
    state->stack_room = room;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    return here < room.from && room.from - here <= left;
}

void stack_raise_low(void)
{
    PyErr_SetString(PyExc_RecursionError,
                    "maximum recursion depth exceeded: calls of traced functions have used up the "
                    "C stack (see threading.stack_size and ulimit -s)");
}
