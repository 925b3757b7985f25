/* pages.c: what new pages of tmpfs cost a program that does nothing else.
 *
 *     cc -O2 -o /tmp/pages benchmarks/pages.c && /tmp/pages
 *
 * Copies 5,000 bytes at a time into new files of 4 MiB in /dev/shm, as a burst of chat-sized calls does once
 * the ring is full, and into one that has its pages already. A line says how the pages were asked for. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { FILE_BYTES = 4 << 20, RECORD_BYTES = 5000, FILES = 8 };

typedef struct {
    const char *name;
    size_t portion; /* bytes that are asked for at a time; 0: pages come when they are touched */
    int allocate, populate, twice;
} Way;

static const Way ways[] = {
    {"touched", 0, 0, 0, 0},
    {"fallocate, 8 KiB", 8 << 10, 1, 0, 0},
    {"fallocate, 64 KiB", 64 << 10, 1, 0, 0},
    {"fallocate and populate, 64 KiB", 64 << 10, 1, 1, 0},
    {"populate, 64 KiB", 64 << 10, 0, 1, 0},
    {"there already", 0, 0, 0, 1},
};

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Fills a file; microseconds a record. */
static double fill(const Way *way, int fd, char *map)
{
    static char record[RECORD_BYTES];
    size_t asked = 0, records = 0;
    double began = now_us();
    for (size_t at = 0; at + RECORD_BYTES <= FILE_BYTES; at += RECORD_BYTES, records++) {
        if (way->portion > 0 && at + RECORD_BYTES > asked) {
            size_t end = (at + RECORD_BYTES + way->portion - 1) / way->portion * way->portion;
            end = end < FILE_BYTES ? end : FILE_BYTES;
            if (way->allocate && posix_fallocate(fd, (off_t)asked, (off_t)(end - asked)) != 0) {
                fail("posix_fallocate");
            }
            if (way->populate && madvise(map + asked, end - asked, MADV_POPULATE_WRITE) != 0) {
                fail("madvise");
            }
            asked = end;
        }
        memcpy(map + at, record, RECORD_BYTES);
    }
    return (now_us() - began) / (double)records;
}

int main(void)
{
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        double sum = 0;
        for (int n = 0; n < FILES; n++) {
            char path[] = "/dev/shm/pages-XXXXXX";
            int fd = mkstemp(path);
            if (fd < 0 || unlink(path) != 0 || ftruncate(fd, FILE_BYTES) != 0) {
                fail(path);
            }
            char *map = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (map == MAP_FAILED) {
                fail("mmap");
            }
            double took = fill(&ways[i], fd, map);
            sum += ways[i].twice ? fill(&ways[i], fd, map) : took;
            munmap(map, FILE_BYTES);
            close(fd);
        }
        printf("%-32s %5.2f us a record\n", ways[i].name, sum / FILES);
    }
    return 0;
}
