/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vm.c: address spaces: page tables, pages on demand, copies on write. */
#include "kernel.h"

extern uint8_t text_end[];

uint64_t *kernel_root; /* entries 1 and 2 alone: what every address space has */

/* An entry for the page, and what an entry says. A and D are set from the start: a hart may set them itself when it
   uses the page, or raise a page fault to have us do it. This way both are the same. */
static uint64_t entry_of(void *page, uint64_t rights) { return (uint64_t)page >> 2 | rights | PTE_A | PTE_D | PTE_V; }
static void *page_of(uint64_t entry) { return (void *)(entry >> 10 << 12); }

/* The table that `*entry` points to; makes it if there is none. NULL if memory has run out. */
static uint64_t *next_table(uint64_t *entry)
{
    if (!(*entry & PTE_V)) {
        void *table = page_alloc();
        if (!table)
            return NULL;
        *entry = (uint64_t)table >> 2 | PTE_V;
    }
    return page_of(*entry);
}

/* The entry for a page of 4 KiB. `make`: missing tables are made. NULL: there is none. */
static uint64_t *entry_at(uint64_t *table, uint64_t address, bool make)
{
    for (int level = 2; level > 0; level--) {
        uint64_t *entry = &table[address >> (12 + 9 * level) & 511];
        if (!(*entry & PTE_V) && !make)
            return NULL;
        table = next_table(entry);
        if (!table)
            return NULL;
    }
    return &table[address >> 12 & 511];
}

/* The kernel's own mappings, and paging on. */
void vm_init(void)
{
    kernel_root = page_alloc();
    kernel_root[DEVICES / GIGAPAGE_SIZE] = entry_of((void *)0, PTE_R | PTE_W | PTE_G);

    /* RAM by megapages: one entry for 2 MiB. What is below the kernel belongs to the firmware and is left out. */
    uint64_t *table = next_table(&kernel_root[RAM_START / GIGAPAGE_SIZE]);
    for (uint64_t at = KERNEL_START + MEGAPAGE_SIZE; at < machine.ram_end; at += MEGAPAGE_SIZE)
        table[(at - RAM_START) / MEGAPAGE_SIZE] = entry_of((void *)at, PTE_R | PTE_W | PTE_G);

    /* The megapage with the kernel itself page by page: its text cannot be written, its data not executed. */
    for (uint64_t at = KERNEL_START; at < KERNEL_START + MEGAPAGE_SIZE; at += PAGE_SIZE) {
        uint64_t rights = at < (uint64_t)text_end ? PTE_R | PTE_X : PTE_R | PTE_W;
        *entry_at(kernel_root, at, true) = entry_of((void *)at, rights | PTE_G);
    }
    vm_switch(kernel_root, 0);
}

/*
 * From here on the hart translates with `root`. The ASID lets a hart keep translations of several address spaces at
 * a time; how many bits of it there are is its own affair, maybe none, so everything is flushed all the same.
 * (For who debugs: with the pid there, each process's satp differs from all others', also later ones'.)
 */
void vm_switch(uint64_t *root, int asid)
{
    uint64_t satp = SATP_SV39 | (uint64_t)(asid & 0xffff) << 44 | (uint64_t)root / PAGE_SIZE;
    if (satp == csr_read(satp))
        return;
    csr_write(satp, satp);
    flush_all();
}

bool vm_new(struct space *space)
{
    memset(space, 0, sizeof *space);
    for (int i = 0; i < REGIONS; i++)
        space->region[i].inode = -1;
    space->root = page_alloc();
    if (!space->root)
        return false;
    memcpy(space->root, kernel_root, PAGE_SIZE);
    return true;
}

/* Gives back all pages in [start, end), which lie in root entry 0. */
void vm_unmap(struct space *space, uint64_t start, uint64_t end)
{
    for (uint64_t at = start; at < end; at += PAGE_SIZE) {
        uint64_t *entry = entry_at(space->root, at, false);
        if (!entry) { /* no table: skip the 2 MiB that it would be for */
            at |= MEGAPAGE_SIZE - PAGE_SIZE;
            continue;
        }
        if (*entry & PTE_V) {
            page_free(page_of(*entry));
            *entry = 0;
        }
    }
    flush_all();
}

/* The hart must not be using it. */
void vm_destroy(struct space *space)
{
    for (int i = 0; i < REGIONS; i++) {
        struct region *region = &space->region[i];
        vm_unmap(space, region->start, region->end);
        if (region->inode >= 0)
            file_release(region->inode);
    }
    if (space->root[0] & PTE_V) { /* the tables of entry 0; the others are shared */
        uint64_t *table = page_of(space->root[0]);
        for (int i = 0; i < 512; i++)
            if (table[i] & PTE_V)
                page_free(page_of(table[i]));
        page_free(table);
    }
    page_free(space->root);
    space->root = NULL;
}

/*
 * fork: the copy sees the same pages. Those that may be written lose that right on both sides and are marked: the
 * first to write gets a page fault, and a page of its own.
 */
bool vm_copy(struct space *to, struct space *from)
{
    if (!vm_new(to))
        return false;
    for (int i = 0; i < REGIONS; i++) {
        struct region *region = &to->region[i];
        *region = from->region[i];
        if (region->inode >= 0)
            file_hold(region->inode);
        for (uint64_t at = region->start; at < region->end; at += PAGE_SIZE) {
            uint64_t *entry = entry_at(from->root, at, false);
            if (!entry) {
                at |= MEGAPAGE_SIZE - PAGE_SIZE;
                continue;
            }
            if (!(*entry & PTE_V))
                continue; /* not touched yet: each of the two will have its own */
            uint64_t *copy = entry_at(to->root, at, true);
            if (!copy) {
                vm_destroy(to); /* the regions that come later are still empty */
                flush_all();
                return false;
            }
            if (*entry & PTE_W)
                *entry = (*entry & ~PTE_W) | PTE_COW;
            *copy = *entry;
            page_share(page_of(*entry));
        }
    }
    flush_all(); /* the parent's rights have shrunk */
    return true;
}

static struct region *region_at(struct space *space, uint64_t address)
{
    for (int i = 0; i < REGIONS; i++)
        if (address >= space->region[i].start && address < space->region[i].end)
            return &space->region[i];
    return NULL;
}

/* Reads the part of the page at `address` that comes from a file. May sleep. */
static bool fill(const struct region *region, uint64_t address, uint8_t *page)
{
    uint64_t begin = address > region->data ? address : region->data;
    uint64_t end = address + PAGE_SIZE, data_end = region->data + region->bytes;
    if (end > data_end)
        end = data_end;
    if (region->inode < 0 || begin >= end)
        return true;
    int64_t size = (int64_t)(end - begin);
    return file_read(region->inode, region->offset + (begin - region->data), page + (begin - address), (uint64_t)size)
           == size;
}

/*
 * Makes the page at `address` present with `right` (PTE_R, PTE_W or PTE_X), if the process may have that.
 * False: it may not, or memory has run out. May sleep; nobody else changes the space meanwhile.
 */
bool vm_fault(struct space *space, uint64_t address, uint64_t right)
{
    address &= ~(PAGE_SIZE - 1);
    struct region *region = region_at(space, address);
    if (!region || !(region->rights & right))
        return false;
    uint64_t *entry = entry_at(space->root, address, true);
    if (!entry)
        return false;

    if (*entry & PTE_V) {
        if (right != PTE_W || (*entry & PTE_W))
            return true; /* there already: vm_reach() asks for such */
        void *old = page_of(*entry);
        if (page_users(old) > 1) {
            void *copy = page_alloc();
            if (!copy)
                return false;
            memcpy(copy, old, PAGE_SIZE);
            page_free(old);
            *entry = entry_of(copy, region->rights | PTE_U);
        } else { /* all others have theirs or have ended */
            *entry = entry_of(old, region->rights | PTE_U);
        }
    } else {
        void *page = page_alloc();
        if (!page)
            return false;
        if (!fill(region, address, page)) {
            page_free(page);
            return false;
        }
        *entry = entry_of(page, region->rights | PTE_U);
        __asm__ volatile("fence.i" : : : "memory"); /* it may be code */
    }
    flush_page(address);
    return true;
}

/* Where the kernel finds a byte of a process: never through the process's own mapping, so that a bad pointer is an
   error and no trap. Valid up to the end of that page. */
void *vm_reach(struct space *space, uint64_t address, uint64_t right)
{
    if (!vm_fault(space, address, right))
        return NULL;
    return (uint8_t *)page_of(*entry_at(space->root, address, false)) + address % PAGE_SIZE;
}

static uint64_t in_page(uint64_t address, uint64_t size)
{
    uint64_t rest = PAGE_SIZE - address % PAGE_SIZE;
    return size < rest ? size : rest;
}

bool vm_read(struct space *space, void *to, uint64_t from, uint64_t size)
{
    for (uint64_t n; size; size -= n, from += n, to = (uint8_t *)to + n) {
        n = in_page(from, size);
        void *at = vm_reach(space, from, PTE_R);
        if (!at)
            return false;
        memcpy(to, at, n);
    }
    return true;
}

bool vm_write(struct space *space, uint64_t to, const void *from, uint64_t size)
{
    for (uint64_t n; size; size -= n, to += n, from = (const uint8_t *)from + n) {
        n = in_page(to, size);
        void *at = vm_reach(space, to, PTE_W);
        if (!at)
            return false;
        memcpy(at, from, n);
    }
    return true;
}

/* A text with its 0; false also if it has no end within `room`. */
bool vm_read_text(struct space *space, char *to, uint64_t from, uint64_t room)
{
    for (; room; room--, to++, from++) {
        if (!vm_read(space, to, from, 1))
            return false;
        if (!*to)
            return true;
    }
    return false;
}
