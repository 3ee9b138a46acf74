/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmrec's entropy device, the simplest source of random bits that a bare-metal guest can read.
 *
 *     0x0  DATA  reading pulls four bytes from outside: a recorded event
 *     0x4  ID    0x656e7431 ("ent1"), so that a guest can find out whether the device is there
 *
 * Words only. Writes do nothing.
 */
#include "device.h"

#define ENTROPY_ID 0x656e7431

int entropy_read(entropy_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t *value)
{
    if (size != 4 || (offset & 3))
        return -1;
    *value = 0;
    if (offset == 4) {
        *value = ENTROPY_ID;
    } else if (offset == 0) {
        if (!port->has_pulled || port->pulled_length != 4) {
            port->pull = 4;
            return 0;
        }
        s->reads++;
        for (uint32_t i = 0; i < 4; i++)
            *value |= (uint64_t)port->pulled[i] << (8 * i);
        port->has_pulled = 0;
    }
    return 0;
}

int entropy_write(entropy_state *s, port_t *port, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)s;
    (void)port;
    (void)value;
    return size != 4 || (offset & 3) ? -1 : 0;
}
