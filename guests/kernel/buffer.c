/* SPDX-License-Identifier: GPL-2.0-or-later */
/* buffer.c: blocks of the disk that are kept in memory; writes go to the disk at once. */
#include "kernel.h"

#define BUFFERS 24
static struct buffer buffer[BUFFERS];
static uint64_t uses;

/* The buffer of the block if there is one, else the one that was not used for the longest time. NULL: all are busy. */
static struct buffer *choose(uint32_t block)
{
    struct buffer *oldest = NULL;
    for (struct buffer *b = buffer; b < buffer + BUFFERS; b++) {
        if (b->block == block)
            return b;
        if (!b->busy && (!oldest || b->last_used < oldest->last_used))
            oldest = b;
    }
    return oldest;
}

/* The caller alone has it until buffer_put(). */
struct buffer *buffer_get(uint32_t block, bool fresh)
{
    struct buffer *b;
    while (!(b = choose(block)) || b->busy)
        sleep_on(buffer); /* then choose again: it may hold another block by now */
    b->busy = true;
    b->last_used = ++uses;
    if (!b->data && !(b->data = page_alloc()))
        panic("no memory for a block of the disk");
    if (fresh)
        memset(b->data, 0, BLOCK_SIZE);
    else if (b->block != block) {
        b->block = block; /* busy: who else wants it waits */
        disk_transfer(block, b->data, false);
    }
    b->block = block;
    return b;
}

void buffer_write(struct buffer *b) { disk_transfer(b->block, b->data, true); }

void buffer_put(struct buffer *b)
{
    b->busy = false;
    wake(buffer);
}
