/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-rng: entropy (virtio 1.2, 5.4). One queue; the driver makes buffers available, the device fills them.
 *
 * The bytes are pulled from outside, as those of vmrec's own entropy device: one recorded event for all chains of a
 * notification. A chain gets at most RNG_MAX bytes, however large it is (5.4.6.2 asks for one at least).
 */
#include "device.h"
#include "virtio.h"

#define RNG_MAX 256u

static uint32_t share(const virtio_chain *chain)
{
    return chain->writable_bytes < RNG_MAX ? (uint32_t)chain->writable_bytes : RNG_MAX;
}

/* Bytes for all chains: at most SUPPLY_MAX. */
uint32_t rng_wanted(const virtio_work *work)
{
    uint32_t wanted = 0;
    for (size_t i = 0; i < work->chain_count; i++)
        wanted += share(&work->chains[i]);
    return wanted;
}

/* Gives a chain its share of what was pulled, from *at on. */
uint32_t rng_do(port_t *port, const virtio_work *work, const virtio_chain *chain, uint32_t *at)
{
    uint32_t length = share(chain);
    chain_store(port, work, chain, 0, port->pulled + *at, length);
    *at += length;
    return length;
}
