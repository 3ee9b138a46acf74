/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Physical addresses outside RAM: the boot ROM and the devices, and the wiring between them.
 *
 *     0x0000_1000  boot ROM            0x0c00_0000  PLIC
 *     0x0010_0000  test finisher       0x1000_0000  UART 16550     interrupt source 10
 *     0x0010_1000  goldfish RTC (11)   0x1020_0000  entropy
 *     0x0200_0000  CLINT               0x8000_0000  RAM (door.c)
 *
 * The addresses are those of QEMU's `virt` board, but for the entropy device, which is vmrec's own.
 */
#include "device.h"
#include "internal.h"

#define UART_SOURCE 10
#define RTC_SOURCE 11

enum device { FINISHER, RTC, CLINT, PLIC, UART, ENTROPY, NO_DEVICE };

static const struct {
    uint64_t base, size;
} map[] = {
    [FINISHER] = {0x00100000, 0x1000}, [RTC] = {0x00101000, 0x1000},   [CLINT] = {0x02000000, 0x10000},
    [PLIC] = {0x0c000000, 0x600000},   [UART] = {0x10000000, 0x100},   [ENTROPY] = {0x10200000, 0x1000},
};

static enum device find(uint64_t address, uint32_t size, uint64_t *offset)
{
    for (int device = 0; device < NO_DEVICE; device++)
        if (address - map[device].base < map[device].size) {
            *offset = address - map[device].base;
            return *offset + size <= map[device].size ? (enum device)device : NO_DEVICE;
        }
    return NO_DEVICE;
}

static port_t open_port(const vm_t *vm)
{
    port_t port = {.base = vm->rtc_base, .has_pulled = vm->in->has_supplied, .pulled = vm->in->supplied};
    port.mtime = vm_mtime(vm) - vm->clint.mtime_offset;
    return port;
}

/* Lines follow the devices: device → PLIC → mip, CLINT → mip. */
void bus_update_lines(vm_t *vm)
{
    port_t port = open_port(vm);
    uint64_t mip = 0;
    rtc_tick(&vm->rtc, &port);
    plic_line(&vm->plic, UART_SOURCE, uart_irq(&vm->uart));
    plic_line(&vm->plic, RTC_SOURCE, rtc_irq(&vm->rtc));
    if (vm->clint.msip)
        mip |= MIP_MSIP;
    if (vm_mtime(vm) >= vm->clint.mtimecmp)
        mip |= MIP_MTIP;
    if (plic_irq(&vm->plic))
        mip |= MIP_MEIP;
    if (vm->in->supervisor) {
        const supervisor_state *s = &vm->supervisor;
        mip |= s->soft_mip & (s->menvcfg & MENVCFG_STCE ? MIP_SSIP | MIP_SEIP : MIP_SUPERVISOR);
        if ((s->menvcfg & MENVCFG_STCE) && vm_mtime(vm) >= s->stimecmp)
            mip |= MIP_STIP;
        if (plic_irq_supervisor(&vm->plic, s))
            mip |= MIP_SEIP;
    }
    vm->hart.mip = mip;
}

void bus_reset(vm_t *vm)
{
    memset(&vm->clint, 0, sizeof vm->clint);
    memset(&vm->plic, 0, sizeof vm->plic);
    memset(&vm->uart, 0, sizeof vm->uart);
    memset(&vm->rtc, 0, sizeof vm->rtc);
    memset(&vm->entropy, 0, sizeof vm->entropy);
    vm->clint.mtimecmp = ~0ull;
}

static int access_device(vm_t *vm, enum device device, port_t *port, uint64_t offset, uint32_t size, int write,
                         uint64_t *value)
{
    switch (device) {
    case FINISHER:
        return write ? finisher_write(port, offset, size, *value) : finisher_read(port, offset, size, value);
    case RTC:
        return write ? rtc_write(&vm->rtc, port, offset, size, *value)
                     : rtc_read(&vm->rtc, port, offset, size, value);
    case CLINT:
        return write ? clint_write(&vm->clint, port, offset, size, *value)
                     : clint_read(&vm->clint, port, offset, size, value);
    case PLIC:
        if (vm->in->supervisor && plic_is_supervisor(offset))
            return write ? plic_write_supervisor(&vm->plic, &vm->supervisor, offset, size, *value)
                         : plic_read_supervisor(&vm->plic, &vm->supervisor, offset, size, value);
        return write ? plic_write(&vm->plic, port, offset, size, *value)
                     : plic_read(&vm->plic, port, offset, size, value);
    case UART:
        return write ? uart_write(&vm->uart, port, offset, size, *value)
                     : uart_read(&vm->uart, port, offset, size, value);
    case ENTROPY:
        return write ? entropy_write(&vm->entropy, port, offset, size, *value)
                     : entropy_read(&vm->entropy, port, offset, size, value);
    default: return -1;
    }
}

/* Does the guest wait for a console byte? It polled LSR in vain, or wants an interrupt for an empty receiver. */
static int receive_wanted(const vm_t *vm, uint64_t offset, int write)
{
    const uart_state *s = &vm->uart;
    if (s->fifo_length)
        return 0;
    return (!write && offset == 5) || ((s->ier & 1) && (offset <= 2));
}

static int transfer(vm_t *vm, uint64_t address, uint32_t size, int write, uint64_t *value)
{
    uint64_t offset = 0;
    enum device device = find(address, size, &offset);
    if (device == NO_DEVICE)
        return 1;
    port_t port = open_port(vm);
    if (access_device(vm, device, &port, offset, size, write, value))
        return 1;
    vm->mmio_accesses++;
    vm->in->reasons++;
    if (port.pull) {
        vm->exit_detail = port.pull;
        vm->in->exit = VM_EXIT_PULL + 1;
        vm->in->recheck = 1;
        return 2;
    }
    vm->in->has_supplied = port.has_pulled;
    if (port.has_output) {
        mp_array(&vm->in->outputs, 3);
        mp_str(&vm->in->outputs, "console");
        mp_uint(&vm->in->outputs, vm->time.position);
        mp_bin(&vm->in->outputs, &port.output, 1);
        if (vm->in->outputs.length > 60000) {
            vm->in->exit = VM_EXIT_OUTPUT_FULL + 1;
            vm->in->recheck = 1;
        }
    }
    if (port.stop)
        machine_stop(vm, port.stop, port.stop_code, vm->time.position);
    if (port.deadline_moved) {
        vm->in->recheck = 1;
        if (vm->watch_deadline && !vm->in->exit)
            vm->in->exit = VM_EXIT_DEADLINE + 1;
    }
    if (device == UART && vm->rx_paced && receive_wanted(vm, offset, write)) {
        if (!vm->in->exit || vm->in->exit == VM_EXIT_POINT + 1)
            vm->in->exit = VM_EXIT_RX_WANTED + 1;
        vm->in->recheck = 1;
    }
    uint64_t before = vm->hart.mip;
    bus_update_lines(vm);
    if (vm->hart.mip != before)
        vm->in->recheck = 1;
    return 0;
}

int bus_load(vm_t *vm, uint64_t address, uint32_t size, uint64_t *value)
{
    if (address - ROM_BASE < ROM_SIZE && size <= ROM_SIZE - (address - ROM_BASE)) {
        *value = 0;
        memcpy(value, vm->in->rom + (address - ROM_BASE), size);
        return 0;
    }
    int result = transfer(vm, address, size, 0, value);
    if (!result && size < 8)
        *value &= (1ull << (8 * size)) - 1;
    if (!result)
        registers_inflow(vm, *value);
    return result;
}

int bus_store(vm_t *vm, uint64_t address, uint32_t size, uint64_t value)
{
    return transfer(vm, address, size, 1, &value);
}

int vm_bus_access(vm_t *vm, uint64_t address, uint32_t size, int write, uint64_t *value)
{
    int result = write ? bus_store(vm, address, size, *value) : bus_load(vm, address, size, value);
    loop_update_deadline(vm);
    return result ? -1 : 0;
}
