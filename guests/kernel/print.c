/* SPDX-License-Identifier: GPL-2.0-or-later */
/* print.c: the kernel's own messages, and how it ends when it cannot go on. */
#include "kernel.h"

static void number(uint64_t value, unsigned base, int width, char fill)
{
    char digits[20];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n < width--)
        console_put(fill);
    while (n)
        console_put(digits[--n]);
}

static void print_list(const char *format, va_list list)
{
    for (; *format; format++) {
        if (*format != '%') {
            console_put(*format);
            continue;
        }
        char fill = *++format == '0' ? '0' : ' ';
        int width = 0;
        for (; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + *format - '0';
        switch (*format) {
        case 's': {
            const char *text = va_arg(list, const char *);
            for (; *text; text++, width--)
                console_put(*text);
            while (width-- > 0)
                console_put(' ');
            break;
        }
        case 'c': console_put((char)va_arg(list, int)); break;
        case 'd': {
            int value = va_arg(list, int);
            if (value < 0)
                console_put('-');
            number(value < 0 ? -(uint64_t)value : (uint64_t)value, 10, width, fill);
            break;
        }
        case 'u': number(va_arg(list, unsigned), 10, width, fill); break;
        case 'x': number(va_arg(list, unsigned), 16, width, fill); break;
        case 'p': number((uint64_t)va_arg(list, void *), 16, 16, '0'); break;
        default: console_put('%'); console_put(*format);
        }
    }
}

void print(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    print_list(format, list);
    va_end(list);
}

/* Return addresses, innermost first. Below the frame pointer lie the return address and the caller's frame pointer. */
static void backtrace(const uint64_t *frame)
{
    print("called from (riscv64-unknown-elf-addr2line -e kernel.elf ...):\n");
    for (int depth = 0; depth < 20; depth++) {
        uint64_t at = (uint64_t)frame;
        if (at < KERNEL_START || at >= machine.ram_end || at % 8)
            break; /* 0 where a trap or the start ends the chain */
        print("  %p\n", (void *)frame[-1]);
        frame = (const uint64_t *)frame[-2];
    }
}

void panic(const char *format, ...)
{
    va_list list;
    csr_clear(sstatus, SSTATUS_SIE);
    print("\npanic: ");
    va_start(list, format);
    print_list(format, list);
    va_end(list);
    print("\n");
    if (current)
        print("in process %d (%s)\n", current->pid, current->name);
    backtrace(__builtin_frame_address(0));
    power_off(1);
}
