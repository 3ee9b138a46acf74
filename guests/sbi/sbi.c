/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sbi.c: a supervisor that asks its firmware for everything: console, timer, interrupts, fences, harts, power. */
#include <stdint.h>

#define BASE 0x10u
#define TIME 0x54494d45u
#define IPI 0x735049u
#define RFENCE 0x52464e43u
#define HSM 0x48534du
#define SRST 0x53525354u
#define DBCN 0x4442434eu
#define LEGACY_SET_TIMER 0u
#define LEGACY_PUTCHAR 1u
#define LEGACY_GETCHAR 2u

#define SIE_SOFTWARE 0x2u
#define SIE_TIMER 0x20u
#define SSTATUS_SIE 0x2u
#define CAUSE_INTERRUPT ((uintptr_t)1 << (sizeof(uintptr_t) * 8 - 1))
#define NEVER UINT64_MAX

#define csr_read(name) ({ uintptr_t value_; __asm__ volatile("csrr %0, " #name : "=r"(value_) : : "memory"); value_; })
#define csr_write(name, value) __asm__ volatile("csrw " #name ", %0" : : "rK"((uintptr_t)(value)) : "memory")
#define csr_set(name, bits) __asm__ volatile("csrs " #name ", %0" : : "rK"((uintptr_t)(bits)) : "memory")
#define csr_clear(name, bits) __asm__ volatile("csrc " #name ", %0" : : "rK"((uintptr_t)(bits)) : "memory")

struct answer {
    intptr_t error;
    uintptr_t value;
};

static struct answer call(uintptr_t extension, uintptr_t function, uintptr_t x, uintptr_t y, uintptr_t z)
{
    register uintptr_t a0 __asm__("a0") = x;
    register uintptr_t a1 __asm__("a1") = y;
    register uintptr_t a2 __asm__("a2") = z;
    register uintptr_t a6 __asm__("a6") = function;
    register uintptr_t a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a6), "r"(a7) : "memory");
    return (struct answer){(intptr_t)a0, a1};
}

static void put(char c) { call(LEGACY_PUTCHAR, 0, (uint8_t)c, 0, 0); }

static void print(const char *text)
{
    while (*text)
        put(*text++);
}

static void print_number(intptr_t number)
{
    char digits[24];
    int count = 0;
    uintptr_t left = number < 0 ? -(uintptr_t)number : (uintptr_t)number;
    if (number < 0)
        put('-');
    do
        digits[count++] = (char)('0' + left % 10);
    while (left /= 10);
    while (count)
        put(digits[--count]);
}

static void show(const char *what, struct answer answer)
{
    print(what);
    print(": error ");
    print_number(answer.error);
    print(", value ");
    print_number((intptr_t)answer.value);
    put('\n');
}

static void set_timer(uintptr_t extension, uint64_t when)
{
    call(extension, 0, (uintptr_t)when, sizeof(uintptr_t) == 4 ? (uintptr_t)(when >> 32) : 0, 0);
}

static uint64_t now(void)
{
#if __riscv_xlen == 64
    return csr_read(time);
#else
    uint32_t high, low;
    do {
        high = csr_read(timeh);
        low = csr_read(time);
    } while (csr_read(timeh) != high);
    return (uint64_t)high << 32 | low;
#endif
}

/* ------------------------------------------------------------------------------------------------------------- traps */

static volatile unsigned timers, messages, illegal;

uintptr_t trap(uintptr_t cause, uintptr_t pc, uintptr_t value)
{
    (void)value;
    if (cause == (CAUSE_INTERRUPT | 5)) {
        timers++;
        set_timer(TIME, NEVER);
    } else if (cause == (CAUSE_INTERRUPT | 1)) {
        messages++;
        csr_clear(sip, SIE_SOFTWARE);
    } else if (cause == 2) {
        illegal++;
        return pc + 4;
    } else {
        print("unexpected trap: scause ");
        print_number((intptr_t)cause);
        put('\n');
        call(SRST, 0, 0, 1, 0);
    }
    return pc;
}

/* Interrupts come only here, so that none comes between a look and the wait that it is for. */
static void let_interrupts_in(void)
{
    csr_set(sstatus, SSTATUS_SIE);
    csr_clear(sstatus, SSTATUS_SIE);
}

static void try_timers(void)
{
    csr_set(sie, SIE_TIMER);
    for (unsigned i = 0; i < 3; i++) {
        set_timer(i == 1 ? LEGACY_SET_TIMER : TIME, now() + 200);
        while (timers == i) {
            __asm__ volatile("wfi" : : : "memory");
            let_interrupts_in();
        }
    }
    print("timers: ");
    print_number((intptr_t)timers);
    put('\n');
}

static void try_messages(void)
{
    csr_set(sie, SIE_SOFTWARE);
    show("send to hart 0", call(IPI, 0, 1, 0, 0));
    while (messages == 0)
        let_interrupts_in();
    show("send to all", call(IPI, 0, 0, (uintptr_t)-1, 0));
    while (messages == 1)
        let_interrupts_in();
    show("send to hart 7", call(IPI, 0, 1, 7, 0));
    csr_clear(sie, SIE_SOFTWARE);
}

static void try_harts(void)
{
    show("state of hart 0", call(HSM, 2, 0, 0, 0));
    show("state of hart 9", call(HSM, 2, 9, 0, 0));
    show("start hart 0", call(HSM, 0, 0, (uintptr_t)&try_harts, 0));
    show("fence.i", call(RFENCE, 0, 1, 0, 0));
    show("sfence.vma", call(RFENCE, 1, 1, 0, 0));
    set_timer(TIME, now() + 200);
    show("suspend", call(HSM, 3, 0, 0, 0));
    while (timers == 3)
        let_interrupts_in();
}

static void try_errors(void)
{
    show("no such extension", call(0x0badcafe, 0, 0, 0, 0));
    show("no such function", call(TIME, 5, 0, 0, 0));
    __asm__ volatile(".insn i SYSTEM, 1, x0, x0, 0x300"); /* csrrw to mstatus: not a supervisor's */
    print("illegal instructions: ");
    print_number((intptr_t)illegal);
    put('\n');
}

/* ----------------------------------------------------------------------------------------------------------- console */

static char text[] __attribute__((aligned(4096))) = "printed at once\n";

static void try_console(void)
{
    struct answer there = call(BASE, 3, DBCN, 0, 0);
    if (!there.value) {
        print("debug console: none\n");
        return;
    }
    show("debug console: write", call(DBCN, 0, sizeof text - 1, (uintptr_t)text, 0));
    show("debug console: outside", call(DBCN, 0, 1, 0x1000, 0));
    show("debug console: byte", call(DBCN, 2, '!', 0, 0));
}

/* A line that was typed, by whatever there is, and back again. */
static void try_typing(void)
{
    char line[64];
    unsigned length = 0;
    while (length < sizeof line) {
        intptr_t byte = call(LEGACY_GETCHAR, 0, 0, 0, 0).error;
        if (byte < 0)
            continue;
        if (byte == '\n' || byte == '\r')
            break;
        line[length++] = (char)byte;
    }
    print("typed: ");
    for (unsigned i = 0; i < length; i++)
        put(line[i]);
    put('\n');
}

extern void wake_entry(void);

void woken(uintptr_t hart, uintptr_t taken)
{
    print("woken: hart ");
    print_number((intptr_t)hart);
    print(", took along ");
    print_number((intptr_t)taken);
    put('\n');
    call(SRST, 0, 0, 0, 0);
}

void main(uintptr_t hart, const uint32_t *tree)
{
    print("hart ");
    print_number((intptr_t)hart);
    print(*tree == 0xedfe0dd0 ? ", a device tree\n" : ", no device tree\n");
    show("version", call(BASE, 0, 0, 0, 0));
    show("implementation", call(BASE, 1, 0, 0, 0));
    try_console();
    try_timers();
    try_messages();
    try_harts();
    try_errors();
    try_typing();
    set_timer(TIME, now() + 200);
    show("suspend for good", call(HSM, 3, 0x80000000u, (uintptr_t)&wake_entry, 4711));
    call(SRST, 0, 0, 1, 0);
}
