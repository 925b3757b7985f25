/* background.h: threads that know nothing of Python. See background.c. */
#ifndef FASTTRACE_BACKGROUND_H
#define FASTTRACE_BACKGROUND_H

#include "base/compat.h"

/* Starts a thread that nobody waits for, and that gets none of the program's signals. It may call
 * nothing of Python's. False where the program may have no more threads. */
bool background_start(void *(*function)(void *), void *argument);

#endif
