/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fs.h: the file system on the disk; mkfs.py writes the same. */
#ifndef FS_H
#define FS_H

#include <stdint.h>

#include "abi.h"

/*
 * The disk is an array of blocks of 4096 bytes; numbers are little-endian, 32 bits.
 *
 *   block 0        superblock: magic, number of blocks
 *   block 1        a bit for each block: 1 if it is taken
 *   blocks 2, 3    64 inodes of 128 bytes: name, size, numbers of its blocks
 *   blocks 4 -     contents
 *
 * There are no directories: the name is in the inode. An inode without a name is free.
 * A block number of 0 is a hole, which reads as zeros. Nothing protects against a crash half-way.
 */
#define BLOCK_SIZE 4096u
#define FS_MAGIC 0x736b6474u /* "tdks" */
#define BITMAP_BLOCK 1
#define INODE_BLOCK 2
#define INODE_BLOCKS 2
#define FIRST_DATA (INODE_BLOCK + INODE_BLOCKS)
#define FILE_BLOCKS 24 /* 96 KiB */

struct superblock {
    uint32_t magic;
    uint32_t blocks;
};

struct inode {
    char name[NAME_SIZE];
    uint32_t size;
    uint32_t block[FILE_BLOCKS];
};

#define INODES (INODE_BLOCKS * BLOCK_SIZE / sizeof(struct inode))

#endif
