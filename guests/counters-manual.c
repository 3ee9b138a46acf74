/* SPDX-License-Identifier: GPL-2.0-or-later */
/* counters-manual: counting where QEMU 7.2 departs from the manual: traps, and writes to mcycle and minstret. */
#include "counters.h"

/* counters-trap.S: four instructions that go on behind the one that trapped. */
extern const char skip_trap[];

int main(void)
{
    /* An instruction that traps does not retire; QEMU 7.2 counts it. */
    csr_write(mtvec, skip_trap);
    check_instret("ecall and a handler of 4", INSTRET_OVER("ecall"), 5);
    check_instret("an illegal instruction and a handler of 4", INSTRET_OVER(".word 0"), 5);

    /* What is written is what the next instruction reads; QEMU 7.2 is one ahead and loses the carry. */
    uint32_t a, b, c;
    __asm__ volatile("csrw minstret, %3\n\tcsrr %0, minstret\n\tcsrr %1, instret\n\tcsrr %2, minstret"
                     : "=&r"(a), "=&r"(b), "=&r"(c) : "r"(1000));
    put_text("minstret = 1000, then ");
    put_unsigned(a);
    put_char(' ');
    put_unsigned(b);
    put_char(' ');
    put_unsigned(c);
    verdict("", a == 1000 && b == 1001 && c == 1002);

    csr_write(minstreth, 7);
    __asm__ volatile("csrw minstret, %3\n\tcsrr %0, minstret\n\tcsrr %1, minstret\n\tcsrr %2, minstreth"
                     : "=&r"(a), "=&r"(b), "=&r"(c) : "r"(0xffffffffu));
    put_text("minstret = 0xffffffff carries: ");
    put_hex(a);
    put_char(' ');
    put_unsigned(b);
    put_char(' ');
    put_unsigned(c);
    verdict("", a == 0xffffffffu && b == 0 && c == 8);

    csr_write(mcycle, 5000);
    a = csr_read(mcycle) - 5000;
    verdict("mcycle goes on from what is written", a < 100);
    csr_write(mcycleh, 41);
    csr_write(mcycle, 0xffffff00u);
    for (volatile int i = 0; i < 1000; i++)
        ;
    verdict("mcycle carries into mcycleh", csr_read(mcycleh) == 42 && csr_read(cycleh) == 42);
    verdict("time does not follow", !csr_read(timeh));

    put_text(failures ? "counters-manual: some are wrong\n" : "counters-manual: all as they must be\n");
    return failures != 0;
}
