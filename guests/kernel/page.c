/* SPDX-License-Identifier: GPL-2.0-or-later */
/* page.c: the allocator of physical pages, and how many share each. */
#include "kernel.h"

/*
 *   kernel_end      users[]      first            fresh            end
 *   |               |            |                |                |
 *   +---------------+------------+----------------+----------------+
 *   | kernel        | a byte for | given out, or  | never touched  |
 *   |               | each page  | on the list    |                |
 *   +---------------+------------+----------------+----------------+
 *
 * A page that was given back is on a list that runs through the free pages themselves. Pages that were never given
 * out are not: to put them there would touch all of memory at boot, only to say that nobody has used it.
 */
struct free_page {
    struct free_page *next;
};

static uint8_t *users; /* how many processes see the page: more than one after a fork */
static uint64_t first, fresh, end;
static struct free_page *list;
static uint64_t listed;

void page_init(uint64_t kernel_end, uint64_t ram_end)
{
    uint64_t pages = (ram_end - RAM_START) / PAGE_SIZE;
    users = (uint8_t *)kernel_end; /* zeros: RAM is at power-on, and page_alloc() sets what it gives out */
    first = fresh = (kernel_end + pages + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    end = ram_end & ~(PAGE_SIZE - 1);
}

static uint8_t *users_of(void *page)
{
    uint64_t address = (uint64_t)page;
    if (address < first || address >= fresh || address % PAGE_SIZE)
        panic("%p is not the address of a page", page);
    return &users[(address - RAM_START) / PAGE_SIZE];
}

void *page_alloc(void)
{
    void *page;
    if (list) {
        page = list;
        list = list->next;
        listed--;
    } else if (fresh < end) {
        page = (void *)fresh;
        fresh += PAGE_SIZE;
    } else {
        return NULL;
    }
    *users_of(page) = 1;
    return memset(page, 0, PAGE_SIZE); /* also so that nobody reads what another process left there */
}

void page_share(void *page)
{
    if (++*users_of(page) > PROCESSES)
        panic("page %p has more users than there are processes", page);
}

void page_free(void *page)
{
    uint8_t *count = users_of(page);
    if (!*count)
        panic("page %p is free already", page);
    if (--*count)
        return;
    struct free_page *free = page;
    free->next = list;
    list = free;
    listed++;
}

int page_users(void *page) { return *users_of(page); }

uint64_t page_count_free(void) { return listed + (end - fresh) / PAGE_SIZE; }
