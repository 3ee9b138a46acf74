/* SPDX-License-Identifier: GPL-2.0-or-later */
/* finish.c: the two ways out that start.S needs: main's result, and a trap nobody expected. */
#include "finisher.h"
#include "uart.h"

_Noreturn void finish(uint32_t code) { power_off(code); }

_Noreturn void unexpected_trap(uintptr_t mcause, uintptr_t mepc, uintptr_t mtval)
{
    put_text("unexpected trap: mcause ");
    put_hex(mcause);
    put_text(" mepc ");
    put_hex(mepc);
    put_text(" mtval ");
    put_hex(mtval);
    put_char('\n');
    power_off(3);
}
