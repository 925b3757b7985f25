/* ids.c: xoshiro256++ seeded by the kernel.
 *
 * Ids need to be unique, not secret, and must not depend on random.seed() in the traced program.
 * The generator is the process's and not a module's: two modules of one process must not make the
 * same ids. */
#include "base/ids.h"

#include "base/clock.h"

#include <pthread.h>
#include <string.h>

static uint64_t generator[4];

static bool seeded;

/* The first half of the last trace's id, and when it was made (coarse_ns()). */
static uint64_t first_half;
static uint64_t first_half_at;

/* Traces with longer pauses than this between them (ns) have ids that have nothing to do with each
 * other. */
#define CLOSE_NS 16000000u

/* A lower first half is made anew at the next tick of the clock: ids are shown by their first
 * digits. */
#define LOW_FIRST_HALF (UINT64_C(1) << 56)

static void forget_seed(void)
{
    seeded = false;
    first_half = 0;
}

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

void ids_next_trace(unsigned char id[TRACE_ID_SIZE])
{
    uint64_t now = coarse_ns(), since = now - first_half_at, random = ids_next();
    if (since == 0 ? first_half > 1 : since < CLOSE_NS && first_half > LOW_FIRST_HALF) {
        /* A part of it is taken off, up to a 128th: each step shows in the first digits, and a
         * thousand of them do not lead to zero. */
        first_half -= 1 + (random >> 32) * (first_half >> 39);
    }
    else {
        while (random < 16 * LOW_FIRST_HALF) { /* or the steps would be few */
            random = ids_next();
        }
        first_half = random;
    }
    first_half_at = now;
    for (int i = 0; i < 8; i++) {
        id[i] = (unsigned char)(first_half >> (56 - 8 * i));
    }
    random = ids_next();
    memcpy(id + 8, &random, sizeof random);
}

void span_id_hex(char *hex, uint64_t id)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 15; i >= 0; i--) {
        hex[i] = digits[id & 15];
        id >>= 4;
    }
}
