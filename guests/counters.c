/* SPDX-License-Identifier: GPL-2.0-or-later */
/* counters: cycle, instret and time and their upper halves: prints only what must always hold. */
#include "counters.h"

static uint64_t instret64(void)
{
    uint32_t high, low, again;
    do {
        high = csr_read(instreth);
        low = csr_read(instret);
        again = csr_read(instreth);
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

static uint64_t cycle64(void)
{
    uint32_t high, low, again;
    do {
        high = csr_read(cycleh);
        low = csr_read(cycle);
        again = csr_read(cycleh);
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

static uint64_t time64(void)
{
    uint32_t high, low, again;
    do {
        high = csr_read(timeh);
        low = csr_read(time);
        again = csr_read(timeh);
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

int main(void)
{
    check_instret("nothing", INSTRET_OVER(""), 1);
    check_instret("16 instructions", INSTRET_OVER(".rept 16\n\taddi t0, t0, 1\n\t.endr"), 17);
    check_instret("400 instructions", INSTRET_OVER(".rept 400\n\tadd t0, t0, t1\n\t.endr"), 401);
    check_instret("a loop of 100 rounds", INSTRET_OVER("li t0, 100\n1:\taddi t0, t0, -1\n\tbnez t0, 1b"), 202);
    check_instret("mul and div",
                  INSTRET_OVER("li t0, 7\n\tmul t1, t0, t0\n\tdiv t2, t1, t0\n\tremu t2, t1, zero"), 5);
    check_instret("loads and stores",
                  INSTRET_OVER("lw t0, 0(sp)\n\tlw t1, 4(sp)\n\tsw t0, -64(sp)\n\tsw t1, -60(sp)"), 5);
    check_instret("a device access", INSTRET_OVER("lui t0, 0x10000\n\tlbu t1, 5(t0)"), 3);
    check_instret("fence and fence.i", INSTRET_OVER("fence\n\tfence.i"), 3);

    uint64_t cycle_before = cycle64(), instret_before = instret64(), time_before = clint_mtime();
    uint64_t time_csr = time64();
    for (volatile int i = 0; i < 1000; i++)
        ;
    verdict("cycle moves on", cycle64() > cycle_before);
    verdict("instret moves on", instret64() > instret_before + 3000);
    verdict("time is the CLINT's mtime", time_before <= time_csr && time_csr <= clint_mtime());
    verdict("time never goes back", time64() >= time_csr);
    uint32_t machine = csr_read(mcycle), user = csr_read(cycle);
    verdict("cycle is mcycle", user - machine < 100);
    machine = csr_read(minstret), user = csr_read(instret);
    verdict("instret is minstret", user - machine == 1);
    verdict("upper halves start at 0", !csr_read(cycleh) && !csr_read(instreth));
    put_text(failures ? "counters: some are wrong\n" : "counters: all as they must be\n");
    return failures != 0;
}
