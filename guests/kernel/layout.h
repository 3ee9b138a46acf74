/* SPDX-License-Identifier: GPL-2.0-or-later */
/* layout.h: what lies where: physical addresses of the board, virtual addresses of every address space. */
#ifndef LAYOUT_H
#define LAYOUT_H

/*
 * The board is QEMU's `virt`. Sv39 splits the 39 bits of a virtual address among three tables of 512 entries,
 * so that an entry of the root table is worth 1 GiB. All address spaces share all of them but the first:
 *
 *   root entry   virtual address            physical address
 *   0            0x00000000 - 0x3fffffff    pages of the process, where the allocator found them   U
 *   1            0x40000000 - 0x7fffffff    0x00000000 - 0x3fffffff: devices, in one gigapage
 *   2            0x80000000 - 0xbfffffff    0x80000000 - ...: RAM, at the same address
 *   3 - 511      nothing
 *
 * The kernel lives in RAM, and RAM is mapped where it is. So the address of a page is also a pointer to it, paging
 * is turned on without moving anything, and a system call needs no other page table than the caller's.
 * Pages of entries 1 and 2 lack the U bit: user mode cannot touch them.
 */
#define PAGE_SIZE 4096ul
#define MEGAPAGE_SIZE (2ul << 20)
#define GIGAPAGE_SIZE (1ul << 30)

#define DEVICES 0x40000000ul /* add to the physical address of a device */
#define UART (DEVICES + 0x10000000ul)
#define UART_IRQ 10
#define VIRTIO (DEVICES + 0x10001000ul) /* eight slots, one page each */
#define VIRTIO_SLOTS 8
#define VIRTIO_IRQ 1 /* of slot 0; the next one has 2 */
#define PLIC (DEVICES + 0x0c000000ul)

#define RAM_START 0x80000000ul
#define RAM_LIMIT (RAM_START + GIGAPAGE_SIZE) /* what lies above is not used */
#define KERNEL_START 0x80200000ul             /* firmware keeps what is below */

/*
 * A process, from its first page to its last:
 *
 *   0x00000000   nothing, so that a null pointer faults
 *   0x00010000   the segments of its ELF file
 *   ...          heap: from the page after them, grown by sbrk
 *   0x3fff0000   stack: 64 KiB, downwards from the end
 *   0x40000000   end
 */
#define USER_END 0x40000000ul
#define USER_STACK_SIZE (16 * PAGE_SIZE)

#endif
