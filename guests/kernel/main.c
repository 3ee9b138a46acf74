/* SPDX-License-Identifier: GPL-2.0-or-later */
/* main.c: from the first C line to the first process. */
#include "kernel.h"

extern uint8_t kernel_end[];

struct machine machine = {.ram_end = 0, .timebase = 10000000, .slice = 0};

/* Runs in the first process, since reading the disk means to sleep, and only a process can. */
static void first_process(void)
{
    files_init();
    if (!descriptors_console(current))
        panic("no file for the console");
    char arguments[sizeof machine.arguments + 5] = "init"; /* argv[0], its 0, argv[1] */
    text_copy(arguments + 5, machine.arguments, sizeof machine.arguments);
    if (process_exec("init", 2, arguments, 5 + text_length(arguments + 5) + 1) < 0)
        panic("there is no init on the disk that can be executed");
}

/* The number behind "name=" among the boot arguments, at most a million; `otherwise` if it is not there. */
static uint64_t argument(const char *name, uint64_t otherwise)
{
    size_t length = text_length(name);
    for (const char *at = machine.arguments; *at; at++)
        if ((at == machine.arguments || at[-1] == ' ') && memcmp(at, name, length) == 0) {
            uint64_t value = 0;
            for (at += length; *at >= '0' && *at <= '9' && value < 1000000; at++)
                value = value * 10 + (uint64_t)(*at - '0');
            return value;
        }
    return otherwise;
}

void main(uint64_t hart, const void *devicetree)
{
    machine.hart = (int)hart;
    devicetree_read(devicetree); /* first: nobody keeps its memory from being given away */
    machine.slice = argument("slice=", 1000) * machine.timebase / 1000000 + 1; /* it was microseconds; never 0 */
    machine.tick = argument("tick=", 0) != 0;
    page_init((uint64_t)kernel_end, machine.ram_end);
    vm_init();
    console_init(); /* its addresses exist since vm_init */
    print("kernel: %d MiB, %s\n", (int)((machine.ram_end - RAM_START) >> 20),
          machine.sstc ? "timer: stimecmp" : "timer: SBI");
    trap_init();
    plic_init();
    plic_enable(UART_IRQ);
    disk_init();
    process_init(first_process);
    scheduler();
}
