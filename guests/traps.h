/* SPDX-License-Identifier: GPL-2.0-or-later */
/* traps.h: part of traps and traps-manual: the handler, and the check of a trap against what it must be. */
#ifndef TRAPS_H
#define TRAPS_H

#include "runtime/clint.h"
#include "runtime/plic.h"
#include "runtime/uart.h"

/* The last trap, as on_trap saw it; order has a byte for each trap, the last one lowest. */
static volatile struct {
    uintptr_t mcause, mepc, mtval, mstatus, count, order;
} seen;
static uintptr_t resume; /* where to go on after a synchronous trap */
static int failures;

__attribute__((interrupt("machine"), aligned(4))) void on_trap(void)
{
    seen.mcause = csr_read(mcause);
    seen.mepc = csr_read(mepc);
    seen.mtval = csr_read(mtval);
    seen.mstatus = csr_read(mstatus);
    seen.count++;
    seen.order = seen.order << 8 | (seen.mcause & 0xff);
    if (!(seen.mcause & CAUSE_INTERRUPT)) {
        csr_write(mepc, resume);
    } else if (seen.mcause == CAUSE_SOFTWARE) {
        clint_set_msip(0);
    } else if (seen.mcause == CAUSE_TIMER) {
        clint_set_mtimecmp(CLINT_NEVER);
    } else if (seen.mcause == CAUSE_EXTERNAL) {
        uart_write(UART_IER, 0);
        plic_complete(plic_claim());
    }
}

/*
 * traps-probes.S: each probe_x runs one instruction that traps, at its label trap_x, and returns when the
 * handler resumes at done_x: with 0, if the instruction's target register was left alone. probe_enable opens
 * the gate for pending interrupts: they are taken at trap_enable, behind the instruction that sets mstatus.MIE.
 */
#define PROBE(name) extern uintptr_t probe_##name(uintptr_t); extern const char trap_##name[], done_##name[]
PROBE(zero_word);
PROBE(ones_word);
PROBE(unknown_csr);
PROBE(readonly_csr);
PROBE(jalr_misaligned);
PROBE(jal_misaligned);
PROBE(branch_misaligned);
PROBE(jump_unmapped);
PROBE(load_unmapped);
PROBE(store_unmapped);
PROBE(ecall);
PROBE(ebreak);
PROBE(enable);

static void verdict(int good)
{
    put_text(good ? ": ok\n" : ": WRONG\n");
    failures += !good;
}

/* mepc is printed as an offset from the symbol at `base`, or as it is if base is 0. */
static void put_trap(const char *name, const char *symbol, uintptr_t base)
{
    put_text(name);
    put_text(": mcause ");
    put_hex(seen.mcause);
    put_text(" mtval ");
    put_hex(seen.mtval);
    put_text(" mepc ");
    if (base) {
        put_text(symbol);
        put_text("+");
        put_unsigned(seen.mepc - base);
    } else {
        put_hex(seen.mepc);
    }
}

struct expected {
    uintptr_t mcause, mepc, mtval;
};

static void expect(const char *name, uintptr_t (*probe)(uintptr_t), uintptr_t argument, const char *base,
                   const char *done, struct expected want)
{
    uintptr_t before = seen.count;
    resume = (uintptr_t)done;
    interrupts_on();
    uintptr_t written = probe(argument);
    interrupts_off();
    put_trap(name, name, (uintptr_t)base);
    verdict(!written && seen.count == before + 1 && seen.mcause == want.mcause && seen.mepc == want.mepc &&
            seen.mtval == want.mtval &&
            (seen.mstatus & (MSTATUS_MPP | MSTATUS_MPIE | MSTATUS_MIE)) == (MSTATUS_MPP | MSTATUS_MPIE));
}

/* The usual synchronous trap: mepc is the probe's own instruction. */
#define EXPECT(name, argument, mcause, mtval) \
    expect(#name, probe_##name, argument, trap_##name, done_##name, \
           (struct expected){mcause, (uintptr_t)trap_##name, mtval})

static inline void request_external(void)
{
    plic_enable(UART_IRQ);
    uart_write(UART_IER, UART_IER_ETBEI); /* the transmitter is empty: at once */
}

#endif
