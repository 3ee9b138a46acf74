/* SPDX-License-Identifier: GPL-2.0-or-later */
/* smc: self-modifying code: patches functions, loops and later instructions of the block that is running. */
#include "runtime/uart.h"

#ifdef NO_FENCE
#define FENCE_I ((void)0)
#else
#define FENCE_I __asm__ volatile("fence.i" : : : "memory")
#endif

#define ADDI_A0_ZERO 0x00000513u /* addi a0, zero, immediate: the immediate is in bits 31:20 */
#define RET 0x00008067u

static uint32_t load_immediate(uint32_t value) { return value << 20 | ADDI_A0_ZERO; }

/* smc-code.S: all return a0, which an instruction that was patched on the way has set. */
extern uint32_t patched_function(void);
extern uint32_t patched_word[1];
extern uint32_t patch_later(uint32_t instruction);
extern uint32_t patch_next(uint32_t instruction);
extern uint32_t patch_half(uint32_t value);
extern uint32_t patch_byte(uint32_t value);
extern uint32_t patch_two(uint32_t value);
extern uint32_t patch_loop(uint32_t rounds);
extern uint32_t page_end_code[2];

static int failures;

static void check(const char *name, uint32_t got, uint32_t want)
{
    put_text(name);
    put_text(": ");
    put_unsigned(got);
    put_text(got == want ? ": ok\n" : ": WRONG\n");
    failures += got != want;
}

int main(void)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 100; i++) {
        *(volatile uint32_t *)patched_word = load_immediate(i);
        FENCE_I;
        sum += patched_function();
    }
    check("a function, patched 100 times", sum, 4950);

    sum = 0;
    for (uint32_t i = 0; i < 50; i++)
        sum += patch_later(load_immediate(i));
    check("a later instruction of the same block", sum, 1225);

    sum = 0;
    for (uint32_t i = 0; i < 50; i++)
        sum += patch_next(load_immediate(i));
    check("the next instruction", sum, 1225);

    sum = 0;
    for (uint32_t i = 0; i < 50; i++)
        sum += patch_half(i << 4);
    check("half of an instruction", sum, 1225);

    sum = 0;
    for (uint32_t i = 0; i < 50; i++)
        sum += patch_byte(i);
    check("a byte of an instruction", sum, 1225 * 16);

    /* One store over the halves of two: addi a0, zero, i and then either addi or xori a0, a0, 1. */
    sum = 0;
    for (uint32_t i = 0; i < 50; i++)
        sum += patch_two((i & 1 ? 0x4513u : 0x0513u) << 16 | i << 4);
    check("two instructions with one store", sum, 1225 + 25 - 25);

    check("a loop that patches itself", patch_loop(1000), 499500);

    sum = 0;
    for (uint32_t i = 0; i < 50; i++) {
        ((volatile uint32_t *)page_end_code)[0] = load_immediate(2 * i);
        ((volatile uint32_t *)page_end_code)[1] = RET;
        FENCE_I;
        sum += ((uint32_t (*)(void))page_end_code)();
    }
    check("new code across the end of a page", sum, 2450);

    put_text(GUEST);
    put_text(failures ? ": some are wrong\n" : ": all as they must be\n");
    return failures != 0;
}
