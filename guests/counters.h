/* SPDX-License-Identifier: GPL-2.0-or-later */
/* counters.h: part of counters and counters-manual: the exact count over some instructions, and its check. */
#ifndef COUNTERS_H
#define COUNTERS_H

#include "runtime/clint.h"
#include "runtime/uart.h"

static int failures;

static void verdict(const char *name, int good)
{
    put_text(name);
    put_text(good ? ": ok\n" : ": WRONG\n");
    failures += !good;
}

/* Counted from the first csrr (not counted) up to the second (counted, as it reads before it retires). */
#define INSTRET_OVER(code) \
    ({ \
        uint32_t first_, second_; \
        __asm__ volatile("csrr %0, instret\n\t" code "\n\tcsrr %1, instret" \
                         : "=&r"(first_), "=&r"(second_) : : "t0", "t1", "t2", "memory"); \
        second_ - first_; \
    })

static void check_instret(const char *name, uint32_t got, uint32_t want)
{
    put_text("instret over ");
    put_text(name);
    put_text(": ");
    put_unsigned(got);
    verdict("", got == want);
}

#endif
