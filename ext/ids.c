/* xoshiro256++ seeded by the kernel: ids need to be unique, not secret, and must not depend on
 * random.seed() in the traced program. Process-wide, so it lives beside, not in, a module's state.
 */
#include "ids.h"

#include <pthread.h>
#include <time.h>

static uint64_t generator[4];
static bool seeded;

static void forget_seed(void) { seeded = false; }

int ids_seed(void)
{
    static bool handler_installed;
    if (!handler_installed) {
        if (pthread_atfork(NULL, NULL, forget_seed) != 0) {
            return -1;
        }
        handler_installed = true;
    }
    if (compat_random_bytes(generator, sizeof generator) != 0) {
        return -1;
    }
    seeded = true;
    return 0;
}

static uint64_t rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }

uint64_t ids_next(void)
{
    if (UNLIKELY(!seeded) && ids_seed() != 0) {
        /* No entropy after a fork: the clock and the address keep the ids apart. */
        generator[0] ^= clock_ns();
        generator[1] ^= (uint64_t)(uintptr_t)&generator;
        seeded = true;
    }
    uint64_t *s = generator, result;
    do {
        result = rotate(s[0] + s[3], 23) + s[0];
        uint64_t t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = rotate(s[3], 45);
    } while (UNLIKELY(result == 0));
    return result;
}

static uint64_t clock_read(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_ns(void) { return clock_read(CLOCK_REALTIME); }

uint64_t steady_ns(void) { return clock_read(CLOCK_MONOTONIC); }

void span_id_hex(char *hex, uint64_t id)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 15; i >= 0; i--) {
        hex[i] = digits[id & 15];
        id >>= 4;
    }
}
