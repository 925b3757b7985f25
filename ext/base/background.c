#include "base/background.h"

#include <pthread.h>
#include <signal.h>

#define THREAD_STACK ((size_t)256 << 10)

bool background_start(void *(*function)(void *), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0) {
        return false;
    }
    bool started = false;
    sigfillset(&all);
    if (pthread_attr_setstacksize(&attributes, THREAD_STACK) == 0 &&
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
        pthread_sigmask(SIG_SETMASK, &all, &before) == 0) {
        started = pthread_create(&thread, &attributes, function, argument) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attributes);
    return started;
}
