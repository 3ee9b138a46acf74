/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SiFive test finisher, as QEMU's `virt` has it: the guest's way to end the run.
 *
 *     0x0   write 0x5555                 power off, exit code 0
 *           write 0x3333 | code << 16    power off, exit code `code`
 *           write 0x7777                 reset
 *
 * Any other value does nothing. Reads give 0. Two- and four-byte accesses.
 */
#include "device.h"

#define FINISH_PASS 0x5555
#define FINISH_FAIL 0x3333
#define FINISH_RESET 0x7777

static int refused(uint64_t offset, uint32_t size)
{
    return (size != 2 && size != 4) || (offset & (size - 1));
}

int finisher_read(port_t *port, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)port;
    *value = 0;
    return refused(offset, size) ? -1 : 0;
}

int finisher_write(port_t *port, uint64_t offset, uint32_t size, uint64_t value)
{
    if (refused(offset, size))
        return -1;
    if (offset != 0)
        return 0;
    switch (value & 0xffff) {
    case FINISH_PASS: port->stop = VM_STOP_POWEROFF; break;
    case FINISH_FAIL:
        port->stop = VM_STOP_POWEROFF;
        port->stop_code = size == 4 ? value >> 16 & 0xffff : 0;
        break;
    case FINISH_RESET: port->stop = VM_STOP_RESET; break;
    default: break;
    }
    return 0;
}
