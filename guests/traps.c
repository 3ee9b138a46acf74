/* SPDX-License-Identifier: GPL-2.0-or-later */
/* traps: takes every trap and interrupt of machine mode on the toy ISA; prints and checks mcause, mepc and mtval. */
#include "traps.h"

static void synchronous_traps(void)
{
    EXPECT(zero_word, 0, 2, 0);
    EXPECT(ones_word, 0, 2, 0xffffffffu);
    EXPECT(unknown_csr, 0, 2, *(const uint32_t *)trap_unknown_csr);
    EXPECT(readonly_csr, 0, 2, *(const uint32_t *)trap_readonly_csr);
    uintptr_t between = (uintptr_t)done_jalr_misaligned + 2;
    EXPECT(jalr_misaligned, between, 0, between);
    expect("jump_unmapped", probe_jump_unmapped, UNMAPPED, 0, done_jump_unmapped,
           (struct expected){1, UNMAPPED, UNMAPPED});
    EXPECT(load_unmapped, UNMAPPED, 5, UNMAPPED);
    EXPECT(store_unmapped, UNMAPPED + 8, 7, UNMAPPED + 8);
    EXPECT(ecall, 0, 11, 0);
    /* The manual leaves mtval of ebreak open: 0 or its address. */
    resume = (uintptr_t)done_ebreak;
    probe_ebreak(0);
    put_text("ebreak: mcause ");
    put_hex(seen.mcause);
    put_text(" mepc ebreak+");
    put_unsigned(seen.mepc - (uintptr_t)trap_ebreak);
    verdict(seen.mcause == 3 && seen.mepc == (uintptr_t)trap_ebreak && (!seen.mtval || seen.mtval == seen.mepc));
}

/* Loads and stores across the border of two words or pages are done by the hardware. */
static void misaligned_accesses(void)
{
    static uint8_t bytes[8192] __attribute__((aligned(4096)));
    uintptr_t before = seen.count;
    uint32_t value = 0;
    for (uintptr_t at = 4093; at < 4096; at++) {
        uint32_t loaded;
        __asm__ volatile("sw %0, 0(%1)" : : "r"(0x01020304u * (at & 3)), "r"(bytes + at) : "memory");
        __asm__ volatile("lw %0, 0(%1)" : "=r"(loaded) : "r"(bytes + at) : "memory");
        value += loaded ^ bytes[at + 3];
    }
    put_text("misaligned accesses: ");
    put_hex32(value);
    verdict(seen.count == before && value == 0x060c121eu);
}

/* One interrupt that is pending while the gate is shut: taken right behind the instruction that opens it. */
static void open_gate(const char *name, uintptr_t mcause, uintptr_t bit)
{
    uintptr_t before = seen.count;
    csr_write(mie, bit);
    while (!(csr_read(mip) & bit))
        ;
    int held = seen.count == before;
    probe_enable(0);
    interrupts_off();
    put_trap(name, "enable", (uintptr_t)trap_enable);
    verdict(held && seen.count == before + 1 && seen.mcause == mcause && seen.mepc == (uintptr_t)trap_enable &&
            !seen.mtval && !(csr_read(mip) & bit));
}

static void interrupts(void)
{
    clint_set_mtimecmp(CLINT_NEVER);
    clint_set_msip(1);
    open_gate("software interrupt", CAUSE_SOFTWARE, MIP_MSIP);
    clint_set_mtimecmp(clint_mtime() + 3);
    open_gate("timer interrupt", CAUSE_TIMER, MIP_MTIP);
    request_external();
    open_gate("external interrupt", CAUSE_EXTERNAL, MIP_MEIP);

    /* wfi goes on when an enabled interrupt is pending, gate open or not. */
    uintptr_t before = seen.count;
    clint_set_mtimecmp(clint_mtime() + 3);
    csr_write(mie, MIP_MTIP);
    while (!(csr_read(mip) & MIP_MTIP))
        wait_for_interrupt();
    put_text("wfi with the gate shut");
    verdict(seen.count == before);
}

/* traps-probes.S: slot n leaves n in mscratch and goes on to on_trap. */
extern const char vector_table[];

/* mtvec mode 1: synchronous traps go to the base, interrupt n goes to base + 4 n. */
static void vectored_traps(void)
{
    csr_write(mtvec, (uintptr_t)vector_table | 1);
    clint_set_mtimecmp(CLINT_NEVER);
    clint_set_msip(1);
    csr_write(mie, MIP_MSIP);
    probe_enable(0);
    interrupts_off();
    put_text("vectored software interrupt: slot ");
    put_unsigned(csr_read(mscratch));
    verdict(csr_read(mscratch) == 3);
    resume = (uintptr_t)done_ecall;
    probe_ecall(0);
    put_text("vectored ecall: slot ");
    put_unsigned(csr_read(mscratch));
    verdict(csr_read(mscratch) == 0);
}

int main(void)
{
    csr_write(mtvec, on_trap);
    synchronous_traps();
    misaligned_accesses();
    interrupts();
    vectored_traps();
    put_text(failures ? "traps: some are wrong\n" : "traps: all as they must be\n");
    return failures != 0;
}
