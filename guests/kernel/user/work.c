/* SPDX-License-Identifier: GPL-2.0-or-later */
/* work.c: `work N [nodisk]`: N rounds of all that a kernel does, each round checked; for measuring and for tests. */
#include "user.h"

#define CALLS 2000u    /* system calls that do nothing */
#define SWITCHES 100u  /* of each of two processes */
#define PAGES 32u      /* touched for the first time, then once more after a fork */
#define COMPUTE 20000u /* rounds of arithmetic in each of two processes, about 9 instructions each */
#define BLOCKS 3u      /* written to the disk and read back */
#define PAGE 4096u

static unsigned seed;

static unsigned next(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static unsigned system_calls(void)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < CALLS; i++)
        sum += (unsigned)getpid();
    return sum == CALLS * (unsigned)getpid();
}

/* Demand paging, then copies on write: what the child writes the parent must not see. */
static unsigned page_faults(void)
{
    unsigned *heap = sbrk(PAGES * PAGE);
    unsigned good = 1;
    int status;
    if (heap == (void *)-1)
        return 0;
    for (unsigned i = 0; i < PAGES; i++)
        heap[i * PAGE / sizeof *heap] = i;
    if (!fork()) {
        for (unsigned i = 0; i < PAGES; i++)
            heap[i * PAGE / sizeof *heap] += 1000;
        for (unsigned i = 0; i < PAGES; i++)
            good &= heap[i * PAGE / sizeof *heap] == i + 1000;
        exit(!good);
    }
    wait(&status);
    for (unsigned i = 0; i < PAGES; i++)
        good &= heap[i * PAGE / sizeof *heap] == i;
    return good && !status && sbrk(-(long)(PAGES * PAGE)) != (void *)-1;
}

static unsigned compute(unsigned from)
{
    static unsigned table[1024];
    unsigned sum = from;
    for (unsigned i = 0; i < COMPUTE; i++) {
        sum = sum * 1664525u + 1013904223u;
        table[sum >> 22] += sum;
        sum ^= table[i % 1024];
    }
    return sum;
}

/* Two processes that want the hart: once they share it nicely, once by the timer. */
static unsigned switches(void)
{
    unsigned expected = compute(seed) & 0x7f; /* in a table that both inherit */
    int pid = fork();
    for (unsigned i = 0; i < SWITCHES; i++)
        yield();
    if (!pid)
        exit((int)(compute(seed + 1) & 0x7f));
    unsigned other = compute(seed + 1) & 0x7f;
    int status;
    wait(&status);
    return (unsigned)status == other && expected < 0x80;
}

static unsigned disk(void)
{
    static unsigned block[PAGE / sizeof(unsigned)];
    unsigned first = seed, good = 1;
    int fd = open("work.tmp", O_READ | O_WRITE | O_CREATE | O_TRUNCATE);
    if (fd < 0)
        return 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        for (unsigned j = 0; j < PAGE / sizeof(unsigned); j++)
            block[j] = next();
        good &= write(fd, block, PAGE) == PAGE;
    }
    seed = first;
    seek(fd, 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        good &= read(fd, block, PAGE) == PAGE;
        for (unsigned j = 0; j < PAGE / sizeof(unsigned); j++)
            good &= block[j] == next();
    }
    close(fd);
    return good && unlink("work.tmp") == 0;
}

/* Another program, so that its pages come from the disk's blocks, and its end. */
static unsigned program(void)
{
    char *argv[] = {"echo", NULL};
    int status;
    if (!fork()) {
        close(1);
        if (open("echo.tmp", O_WRITE | O_CREATE | O_TRUNCATE) != 1)
            exit(1);
        exec("echo", argv);
        exit(1);
    }
    wait(&status);
    return !status && unlink("echo.tmp") == 0;
}

static const struct {
    const char *name;
    unsigned (*run)(void);
} parts[] = {
    {"system calls", system_calls}, {"page faults", page_faults}, {"switches", switches},
    {"disk", disk},                 {"program", program}, /* these two use the disk */
};
#define PARTS (sizeof parts / sizeof *parts)

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? number_of(argv[1], 1) : 1;
    unsigned count = argc > 2 && text_equal(argv[2], "nodisk") ? PARTS - 2 : PARTS;
    for (unsigned round = 1; round <= rounds; round++) {
        seed = round;
        for (unsigned i = 0; i < count; i++)
            if (!parts[i].run()) {
                print("work: round %u: %s: WRONG\n", round, parts[i].name);
                return 1;
            }
        print("work: round %u of %u, seed %x\n", round, rounds, seed);
    }
    return 0;
}
