/* SPDX-License-Identifier: GPL-2.0-or-later */
/* traps-manual: traps where QEMU 7.2 departs from the manual: mtval of misaligned jumps, the order of interrupts. */
#include "traps.h"

int main(void)
{
    csr_write(mtvec, on_trap);

    /* mtval is the target, mepc the jump; QEMU 7.2 leaves the jump's own address in mtval. */
    EXPECT(jal_misaligned, 0, 0, (uintptr_t)trap_jal_misaligned + 6);
    EXPECT(branch_misaligned, 0, 0, (uintptr_t)trap_branch_misaligned + 6);

    /* All three pending at once: external, software, timer; QEMU 7.2 goes by their numbers. */
    clint_set_msip(1);
    clint_set_mtimecmp(0);
    request_external();
    csr_write(mie, MIP_MSIP | MIP_MTIP | MIP_MEIP);
    seen.order = 0;
    probe_enable(0);
    interrupts_off();
    put_text("three interrupts at once, in the order ");
    put_hex(seen.order);
    verdict(seen.order == 0x0b0307);

    put_text(failures ? "traps-manual: some are wrong\n" : "traps-manual: all as they must be\n");
    return failures != 0;
}
