/* ids.c: xoshiro256++ seeded by the kernel.
 *
 * Ids need to be unique, not secret, and must not depend on random.seed() in the traced program.
 * The generator is the process's and not a module's: two modules of one process must not make the
 * same ids. */
#include "base/ids.h"

#include "base/clock.h"

#include <pthread.h>

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

void span_id_hex(char *hex, uint64_t id)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 15; i >= 0; i--) {
        hex[i] = digits[id & 15];
        id >>= 4;
    }
}
