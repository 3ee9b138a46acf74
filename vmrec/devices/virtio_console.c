/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-console: port 0 of it, without any feature (virtio 1.2, 5.3).
 *
 *     queue 0   receive: the driver makes buffers available, the device puts input into them
 *     queue 1   transmit: what the device reads goes to the machine's console
 *
 * Input goes here, and not to the UART, from the moment the driver has set DRIVER_OK and until it resets the device.
 * A chain gets one piece of input, and the driver an interrupt for it. No input is kept in the device: it comes when
 * there is a buffer for it.
 */
#include "device.h"
#include "virtio.h"

#define TRANSMIT_MAX (1ull << 20) /* bytes that one notification may put out */
#define PIECE 4096u               /* bytes of one output */

enum look console_accept(const virtio_work *work, const virtio_chain *chain)
{
    if (work->queue == RECEIVE_QUEUE)
        return chain->writable_bytes ? LOOK_GOOD : LOOK_BROKEN;
    return work->bytes > TRANSMIT_MAX ? LOOK_BROKEN : LOOK_GOOD;
}

uint32_t console_do(port_t *port, const virtio_work *work, const virtio_chain *chain)
{
    uint8_t piece[PIECE];
    for (uint64_t at = 0; at < chain->readable_bytes; at += PIECE) {
        uint64_t left = chain->readable_bytes - at;
        uint32_t length = left < PIECE ? (uint32_t)left : PIECE;
        chain_load(port, work, chain, at, piece, length);
        port_console(port, piece, length);
    }
    return 0;
}

int console_receives(const virtio_state *s, int legacy)
{
    if (!(s->status & STATUS_DRIVER_OK) || (s->status & STATUS_NEEDS_RESET))
        return 0;
    return legacy ? s->queue_desc[RECEIVE_QUEUE] != 0 : s->queue_ready[RECEIVE_QUEUE] != 0;
}

/* Input into the first chain of `work`, which has room for it. */
void console_input(virtio_state *s, port_t *port, virtio_work *work, const uint8_t *data, uint32_t length)
{
    chain_store(port, work, &work->chains[0], 0, data, length);
    queue_done(s, port, work, 0, length);
    queue_end(s, work);
}
