/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Physical addresses outside RAM: the boot ROM and the devices, and the wiring between them.
 *
 *     0x0000_1000  boot ROM            0x0c00_0000  PLIC
 *     0x0010_0000  test finisher       0x1000_0000  UART 16550     interrupt source 10
 *     0x0010_1000  goldfish RTC (11)   0x1020_0000  entropy
 *     0x0200_0000  CLINT               0x8000_0000  RAM (door.c)
 *     0x1000_1000  virtio, 8 slots of a page each, sources 1 to 8; machine revision 2 only
 *
 * The addresses are those of QEMU's `virt` board, but for the entropy device, which is vmrec's own.
 */
#include "device.h"
#include "internal.h"

#define UART_SOURCE 10
#define RTC_SOURCE 11
#define POLLS 3

#define VIRTIO_SOURCE 1 /* of slot 0 */
#define INPUT_MAX 1024u /* bytes of one piece of console input */

enum device { FINISHER, RTC, CLINT, PLIC, UART, ENTROPY, VIRTIO, NO_DEVICE };

static const struct {
    uint64_t base, size;
} map[] = {
    [FINISHER] = {0x00100000, 0x1000}, [RTC] = {0x00101000, 0x1000},   [CLINT] = {0x02000000, 0x10000},
    [PLIC] = {0x0c000000, 0x600000},   [UART] = {0x10000000, 0x100},   [ENTROPY] = {0x10200000, 0x1000},
    [VIRTIO] = {0x10001000, SLOTS * PAGE_SIZE},
};

static enum device find(const vm_t *vm, uint64_t address, uint32_t size, uint64_t *offset)
{
    if (!vm->in->supervisor && address - map[VIRTIO].base < map[VIRTIO].size)
        return NO_DEVICE;
    for (int device = 0; device < NO_DEVICE; device++)
        if (address - map[device].base < map[device].size) {
            *offset = address - map[device].base;
            return *offset + size <= map[device].size ? (enum device)device : NO_DEVICE;
        }
    return NO_DEVICE;
}

static port_t open_port(vm_t *vm)
{
    port_t port = {.machine = vm,
                   .base = vm->rtc_base,
                   .has_pulled = vm->in->has_supplied,
                   .pulled = vm->in->supplied,
                   .pulled_length = vm->in->supplied_length,
                   .latches = vm->in->supervisor,
                   .work = &vm->in->work};
    port.mtime = vm_mtime(vm) - vm->clint.mtime_offset;
    return port;
}

static virtio_device virtio_in(const vm_t *vm, uint32_t slot)
{
    return (virtio_device){.slot = slot,
                           .kind = vm->virtio_kind[slot],
                           .legacy = vm->virtio_legacy != 0,
                           .size = slot < DRIVES ? vm->drive_size[slot] : 0};
}

/* Lines follow the devices: device → PLIC → mip, CLINT → mip. `driven`: the source that was driven anew, 0 if none. */
static void update_lines(vm_t *vm, uint32_t driven)
{
    port_t port = open_port(vm);
    uint64_t mip = 0;
    rtc_tick(&vm->rtc, &port);
    if (vm->in->supervisor) {
        plic_drive(&vm->plic, UART_SOURCE, uart_irq(&vm->uart), driven == UART_SOURCE);
        plic_drive(&vm->plic, RTC_SOURCE, rtc_irq(&vm->rtc), driven == RTC_SOURCE);
        for (uint32_t slot = 0; slot < vm->in->slots; slot++)
            plic_drive(&vm->plic, VIRTIO_SOURCE + slot, vm->virtio[slot].interrupt_status != 0,
                       driven == VIRTIO_SOURCE + slot);
    } else {
        plic_line(&vm->plic, UART_SOURCE, uart_irq(&vm->uart));
        plic_line(&vm->plic, RTC_SOURCE, rtc_irq(&vm->rtc));
    }
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

void bus_update_lines(vm_t *vm)
{
    update_lines(vm, 0);
}

void bus_reset(vm_t *vm)
{
    memset(&vm->clint, 0, sizeof vm->clint);
    memset(&vm->plic, 0, sizeof vm->plic);
    memset(&vm->uart, 0, sizeof vm->uart);
    memset(&vm->rtc, 0, sizeof vm->rtc);
    memset(&vm->entropy, 0, sizeof vm->entropy);
    memset(vm->virtio, 0, sizeof vm->virtio);
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
    case VIRTIO: {
        uint32_t slot = (uint32_t)(offset >> PAGE_SHIFT);
        const virtio_device found = virtio_in(vm, slot);
        offset &= PAGE_SIZE - 1;
        return write ? virtio_write(&vm->virtio[slot], &found, port, offset, size, *value)
                     : virtio_read(&vm->virtio[slot], &found, port, offset, size, value);
    }
    default: return -1;
    }
}

/* --- the console: its input goes to a virtio console that has a driver, else to the UART ---------------------- */

/* The slot of a virtio console that takes input, SLOTS if there is none. */
static uint32_t console_slot(const vm_t *vm)
{
    for (uint32_t slot = 0; slot < vm->in->slots; slot++)
        if (vm->virtio_kind[slot] == VIRTIO_CONSOLE && console_receives(&vm->virtio[slot], vm->virtio_legacy != 0))
            return slot;
    return SLOTS;
}

/* Looks for a buffer for input, in slot `slot`; returns its size, 0 if there is none. */
static uint32_t find_room(vm_t *vm, uint32_t slot, port_t *port)
{
    const virtio_device device = virtio_in(vm, slot);
    if (queue_look(&vm->virtio[slot], &device, port, RECEIVE_QUEUE, 1, port->work) != LOOK_GOOD
        || !port->work->chain_count)
        return 0;
    uint64_t room = port->work->chains[0].writable_bytes;
    return room < INPUT_MAX ? (uint32_t)room : INPUT_MAX;
}

/* How many bytes of input fit now. *missing_page: a page that must be here to know and to do it, NEVER if none. */
uint32_t bus_input_room(vm_t *vm, uint64_t *missing_page)
{
    uint32_t slot = console_slot(vm), room;
    port_t port = open_port(vm);
    *missing_page = NEVER;
    if (slot == SLOTS)
        return uart_room(&vm->uart);
    room = find_room(vm, slot, &port);
    if (port.missing)
        *missing_page = port.missing_page;
    return room;
}

uint32_t bus_push_input(vm_t *vm, const uint8_t *data, uint32_t length)
{
    uint32_t slot = console_slot(vm), taken = 0;
    if (slot == SLOTS) {
        while (taken < length && uart_room(&vm->uart))
            uart_receive(&vm->uart, data[taken++]);
        update_lines(vm, UART_SOURCE);
        return taken;
    }
    port_t port = open_port(vm);
    uint32_t room = find_room(vm, slot, &port);
    taken = length < room ? length : room;
    if (taken) {
        vm_capture_end_block(vm); /* it may change any code */
        console_input(&vm->virtio[slot], &port, port.work, data, taken);
    }
    update_lines(vm, VIRTIO_SOURCE + slot);
    return taken;
}

void port_console(port_t *port, const uint8_t *data, uint32_t length)
{
    buffer_t *outputs = &port->machine->in->outputs;
    mp_array(outputs, 3);
    mp_str(outputs, "console");
    mp_uint(outputs, port->machine->time.position);
    mp_bin(outputs, data, length);
}

void port_written(port_t *port, uint32_t drive, uint64_t sector, uint64_t bytes)
{
    buffer_t *outputs = &port->machine->in->outputs;
    mp_array(outputs, 5);
    mp_str(outputs, "written");
    mp_uint(outputs, port->machine->time.position);
    mp_uint(outputs, drive);
    mp_uint(outputs, sector);
    mp_uint(outputs, bytes);
}

/* The live side is asked to take outputs before they grow large. */
static void look_at_outputs(vm_t *vm)
{
    if (vm->in->outputs.length > 60000) {
        vm->in->exit = VM_EXIT_OUTPUT_FULL + 1;
        vm->in->recheck = 1;
    }
}

static void lines_follow(vm_t *vm, uint32_t driven)
{
    uint64_t before = vm->hart.mip;
    update_lines(vm, driven);
    if (vm->hart.mip != before)
        vm->in->recheck = 1;
}

void bus_do_work(vm_t *vm)
{
    port_t port = open_port(vm);
    uint32_t slot = port.work->slot;
    const virtio_device device = virtio_in(vm, slot);
    virtio_do(&vm->virtio[slot], &device, &port, port.work);
    if (device.kind == VIRTIO_RNG)
        vm->in->has_supplied = 0;
    vm->in->recheck = 1; /* memory is another, and code in it may be */
    look_at_outputs(vm);
    lines_follow(vm, VIRTIO_SOURCE + slot);
}

/* Does somebody hear the UART's interrupts? With machine mode alone, a guest that wants them is believed. */
static int heard(const vm_t *vm)
{
    return !vm->in->supervisor || ((vm->plic.enable[0] | vm->supervisor.plic_enable[0]) >> UART_SOURCE & 1);
}

/*
 * Does the guest wait for a console byte? It polled LSR in vain, or wants an interrupt for an empty receiver. A kernel
 * also reads LSR before each byte that it sends and to clear it, tries what IER can hold, and empties the receiver
 * later: so in a machine with supervisor mode it must have read LSR three times in a row, or have enabled the interrupt
 * in the PLIC too.
 */
static int receive_wanted(vm_t *vm, enum device device, uint64_t offset, int write)
{
    const uart_state *s = &vm->uart;
    if (device == PLIC)
        return vm->in->supervisor && write && !s->fifo_length && (s->ier & 1) && heard(vm);
    if (device != UART)
        return 0;
    int polled = !write && offset == 5 && !s->fifo_length;
    vm->in->polled = polled ? vm->in->polled + (vm->in->polled < POLLS) : 0;
    if (s->fifo_length)
        return 0;
    return (polled && (vm->in->polled == POLLS || !vm->in->supervisor))
           || ((s->ier & 1) && offset <= 2 && heard(vm));
}

static uint32_t source_of(enum device device, uint64_t offset)
{
    switch (device) {
    case UART: return UART_SOURCE;
    case RTC: return RTC_SOURCE;
    case VIRTIO: return VIRTIO_SOURCE + (uint32_t)(offset >> PAGE_SHIFT);
    default: return 0;
    }
}

static int transfer(vm_t *vm, uint64_t address, uint32_t size, int write, uint64_t *value)
{
    uint64_t offset = 0;
    enum device device = find(vm, address, size, &offset);
    if (device == NO_DEVICE)
        return 1;
    port_t port = open_port(vm);
    if (access_device(vm, device, &port, offset, size, write, value))
        return 1;
    vm->mmio_accesses++;
    vm->in->reasons++;
    if (port.pull || port.missing) {
        vm->exit_detail = port.pull ? port.pull : port.missing_page;
        vm->in->exit = (port.pull ? VM_EXIT_PULL : VM_EXIT_MISSING_PAGE) + 1;
        vm->in->recheck = 1;
        return 2;
    }
    vm->in->has_supplied = port.has_pulled;
    if (port.has_output) {
        port_console(&port, &port.output, 1);
        look_at_outputs(vm);
    }
    if (port.stop)
        machine_stop(vm, port.stop, port.stop_code, vm->time.position);
    if (port.deadline_moved) {
        vm->in->recheck = 1;
        if (vm->watch_deadline && !vm->in->exit)
            vm->in->exit = VM_EXIT_DEADLINE + 1;
    }
    int wanted = receive_wanted(vm, device, offset, write) && console_slot(vm) == SLOTS;
    if (vm->rx_paced && (port.room_made || wanted)) {
        if (!vm->in->exit || vm->in->exit == VM_EXIT_POINT + 1)
            vm->in->exit = VM_EXIT_RX_WANTED + 1;
        vm->in->recheck = 1;
    }
    lines_follow(vm, port.line_driven ? source_of(device, offset) : 0);
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
    if (vm->in->work.pending)
        bus_do_work(vm);
    loop_update_deadline(vm);
    return result ? -1 : 0;
}
