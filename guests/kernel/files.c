/* SPDX-License-Identifier: GPL-2.0-or-later */
/* files.c: the file system: names, inodes and the blocks behind them. fs.h draws it. */
#include "kernel.h"

/* Bitmap and inodes are in memory for good; what changes is written at once. */
static uint8_t bitmap[BLOCK_SIZE] __attribute__((aligned(PAGE_SIZE)));
static struct inode table[INODES] __attribute__((aligned(PAGE_SIZE)));
static uint16_t holders[INODES]; /* open files and running programs */
static uint32_t blocks;

void files_init(void)
{
    struct superblock super;
    disk_transfer(0, table, false); /* a place of a block's size, which gets its own contents below */
    memcpy(&super, table, sizeof super);
    if (super.magic != FS_MAGIC || super.blocks > disk_blocks() || super.blocks > 8 * BLOCK_SIZE)
        panic("the disk does not hold a file system of this kernel");
    blocks = super.blocks;
    disk_transfer(BITMAP_BLOCK, bitmap, false);
    for (int i = 0; i < INODE_BLOCKS; i++)
        disk_transfer(INODE_BLOCK + (uint32_t)i, (uint8_t *)table + (unsigned)i * BLOCK_SIZE, false);
}

static void write_inode(int inode)
{
    uint32_t number = (uint32_t)inode * sizeof(struct inode) / BLOCK_SIZE;
    disk_transfer(INODE_BLOCK + number, (uint8_t *)table + number * BLOCK_SIZE, true);
}

static void write_bitmap(void) { disk_transfer(BITMAP_BLOCK, bitmap, true); }

/* A free block, taken from now on. 0: the disk is full. */
static uint32_t take_block(void)
{
    for (uint32_t block = FIRST_DATA; block < blocks; block++)
        if (!(bitmap[block / 8] & 1u << block % 8)) {
            bitmap[block / 8] |= (uint8_t)(1u << block % 8);
            return block;
        }
    return 0;
}

int file_find(const char *name)
{
    for (int i = 0; i < (int)INODES; i++)
        if (table[i].name[0] && text_equal(table[i].name, name))
            return i;
    return -1;
}

int file_create(const char *name)
{
    for (int i = 0; i < (int)INODES && *name; i++)
        if (!table[i].name[0]) {
            memset(&table[i], 0, sizeof table[i]);
            text_copy(table[i].name, name, NAME_SIZE);
            write_inode(i);
            return i;
        }
    return -1;
}

void file_truncate(int inode)
{
    for (int i = 0; i < FILE_BLOCKS; i++) {
        uint32_t block = table[inode].block[i];
        bitmap[block / 8] &= (uint8_t)~(block ? 1u << block % 8 : 0);
        table[inode].block[i] = 0;
    }
    table[inode].size = 0;
    write_inode(inode); /* before the bitmap: a block without a file is better than one with two */
    write_bitmap();
}

bool file_remove(const char *name)
{
    int inode = file_find(name);
    if (inode < 0 || holders[inode])
        return false;
    memset(table[inode].name, 0, NAME_SIZE);
    file_truncate(inode);
    return true;
}

void file_hold(int inode) { holders[inode]++; }
void file_release(int inode) { holders[inode]--; }
uint64_t file_size(int inode) { return table[inode].size; }
const char *file_name(int inode) { return table[inode].name[0] ? table[inode].name : NULL; }

/* How many bytes from `offset` on lie in the same block, `size` at most. */
static uint64_t in_block(uint64_t offset, uint64_t size)
{
    uint64_t rest = BLOCK_SIZE - offset % BLOCK_SIZE;
    return size < rest ? size : rest;
}

/* How many bytes were read: fewer at the end of the file. */
int64_t file_read(int inode, uint64_t offset, void *to, uint64_t size)
{
    uint64_t end = file_size(inode);
    if (offset >= end)
        return 0;
    if (size > end - offset)
        size = end - offset;
    uint64_t left = size;
    for (uint64_t n; left; left -= n, offset += n, to = (uint8_t *)to + n) {
        n = in_block(offset, left);
        uint32_t block = table[inode].block[offset / BLOCK_SIZE];
        if (!block) {
            memset(to, 0, n);
            continue;
        }
        struct buffer *b = buffer_get(block, false);
        memcpy(to, b->data + offset % BLOCK_SIZE, n);
        buffer_put(b);
    }
    return (int64_t)size;
}

/* How many bytes were written: fewer if file or disk are full. */
int64_t file_write(int inode, uint64_t offset, const void *from, uint64_t size)
{
    struct inode *node = &table[inode];
    uint64_t written = 0;
    bool grown = false;
    while (written < size && offset < FILE_BLOCKS * BLOCK_SIZE) {
        uint64_t n = in_block(offset, size - written);
        uint32_t *block = &node->block[offset / BLOCK_SIZE];
        bool fresh = !*block;
        if (fresh && !(*block = take_block()))
            break;
        struct buffer *b = buffer_get(*block, fresh);
        memcpy(b->data + offset % BLOCK_SIZE, (const uint8_t *)from + written, n);
        buffer_write(b);
        buffer_put(b);
        written += n;
        offset += n;
        grown |= fresh;
    }
    if (offset > node->size) {
        node->size = (uint32_t)offset;
        grown = true;
    }
    if (grown) {
        write_bitmap();
        write_inode(inode);
    }
    return (int64_t)written;
}
