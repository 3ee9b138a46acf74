/* SPDX-License-Identifier: GPL-2.0-or-later */
/* syscall.c: what programs can ask for; abi.h has the numbers. No argument is trusted. */
#include "kernel.h"

static struct file files[FILES];

/* --- descriptors: small numbers of a process that mean an open file --- */

/* An open file on a free descriptor; -1: no room. */
static int open_file(struct process *process, int inode, int flags)
{
    for (int d = 0; d < DESCRIPTORS; d++) {
        if (process->file[d])
            continue;
        for (struct file *file = files; file < files + FILES; file++)
            if (!file->uses) {
                *file = (struct file){.uses = 1, .flags = flags, .inode = inode};
                if (inode >= 0)
                    file_hold(inode);
                process->file[d] = file;
                return d;
            }
        return -1;
    }
    return -1;
}

static void close_file(struct file *file)
{
    if (--file->uses == 0 && file->inode >= 0)
        file_release(file->inode);
}

/* Standard input, output and errors of the first process. */
bool descriptors_console(struct process *process)
{
    int in = open_file(process, -1, O_READ), out = open_file(process, -1, O_WRITE);
    return in == 0 && out == 1 && open_file(process, -1, O_WRITE) == 2;
}

/* fork: both mean the same open file, with one offset. */
void descriptors_copy(struct process *to, const struct process *from)
{
    for (int d = 0; d < DESCRIPTORS; d++)
        if ((to->file[d] = from->file[d]))
            to->file[d]->uses++;
}

void descriptors_close(struct process *process)
{
    for (int d = 0; d < DESCRIPTORS; d++)
        if (process->file[d]) {
            close_file(process->file[d]);
            process->file[d] = NULL;
        }
}

static struct file *file_of(uint64_t descriptor, int flag)
{
    struct file *file = descriptor < DESCRIPTORS ? current->file[descriptor] : NULL;
    return file && (!flag || file->flags & flag) ? file : NULL;
}

/* --- the calls: each takes what the program put into a0, a1, a2 --- */

static int64_t sys_exit(uint64_t status, uint64_t unused1, uint64_t unused2)
{
    (void)unused1, (void)unused2;
    process_exit((int)status);
}

static int64_t sys_fork(uint64_t unused0, uint64_t unused1, uint64_t unused2)
{
    (void)unused0, (void)unused1, (void)unused2;
    return process_fork();
}

static int64_t sys_wait(uint64_t status_address, uint64_t unused1, uint64_t unused2)
{
    (void)unused1, (void)unused2;
    return process_wait(status_address);
}

/* Reads the argument vector into one page; how many, or -1. `*size`: bytes of it. */
static int read_arguments(uint64_t argv, char *page, uint64_t *size)
{
    *size = 0;
    for (int count = 0; count < MAX_ARGS; count++) {
        uint64_t text;
        if (!vm_read(&current->space, &text, argv + 8 * (uint64_t)count, 8))
            return -1;
        if (!text)
            return count;
        if (!vm_read_text(&current->space, page + *size, text, PAGE_SIZE - *size))
            return -1;
        *size += text_length(page + *size) + 1;
    }
    return -1;
}

static int64_t sys_exec(uint64_t name_address, uint64_t argv, uint64_t unused2)
{
    (void)unused2;
    char name[NAME_SIZE];
    uint64_t size;
    if (!vm_read_text(&current->space, name, name_address, sizeof name))
        return -1;
    char *page = page_alloc();
    if (!page)
        return -1;
    int count = read_arguments(argv, page, &size);
    int result = count < 0 ? -1 : process_exec(name, count, page, size);
    page_free(page);
    return result;
}

static int64_t sys_getpid(uint64_t unused0, uint64_t unused1, uint64_t unused2)
{
    (void)unused0, (void)unused1, (void)unused2;
    return current->pid;
}

static int64_t sys_yield(uint64_t unused0, uint64_t unused1, uint64_t unused2)
{
    (void)unused0, (void)unused1, (void)unused2;
    yield();
    return 0;
}

static int64_t sys_sleep(uint64_t duration, uint64_t unused1, uint64_t unused2)
{
    (void)unused1, (void)unused2;
    sleep_until(time_now() + (duration & 0xffffffff) * (machine.timebase / 1000));
    return 0;
}

static int64_t sys_uptime(uint64_t unused0, uint64_t unused1, uint64_t unused2)
{
    (void)unused0, (void)unused1, (void)unused2;
    return (int64_t)milliseconds();
}

/* Moves the end of the heap; where it was. New pages exist when they are touched, pages given back are gone. */
static int64_t sys_sbrk(uint64_t bytes, uint64_t unused1, uint64_t unused2)
{
    (void)unused1, (void)unused2;
    struct region *heap = &current->space.region[HEAP];
    int64_t change = (int64_t)bytes;
    uint64_t before = heap->end;
    if (change % (int64_t)PAGE_SIZE || change > (int64_t)USER_END || change < -(int64_t)USER_END)
        return -1;
    uint64_t after = before + (uint64_t)change;
    if (after < heap->start || after > current->space.region[STACK].start)
        return -1;
    if (after < before)
        vm_unmap(&current->space, after, before);
    heap->end = after;
    return (int64_t)before;
}

static int64_t sys_open(uint64_t name_address, uint64_t flags, uint64_t unused2)
{
    (void)unused2;
    char name[NAME_SIZE];
    if (!vm_read_text(&current->space, name, name_address, sizeof name) || !(flags & (O_READ | O_WRITE)))
        return -1;
    int inode = file_find(name);
    if (inode < 0 && flags & O_CREATE)
        inode = file_create(name);
    if (inode < 0)
        return -1;
    int descriptor = open_file(current, inode, (int)flags);
    if (descriptor >= 0 && flags & O_WRITE && flags & O_TRUNCATE)
        file_truncate(inode);
    return descriptor;
}

static int64_t sys_close(uint64_t descriptor, uint64_t unused1, uint64_t unused2)
{
    (void)unused1, (void)unused2;
    struct file *file = file_of(descriptor, 0);
    if (!file)
        return -1;
    current->file[descriptor] = NULL;
    close_file(file);
    return 0;
}

/* Bytes of the process that are on one page: as many as can be moved at a time. */
static uint64_t in_page(uint64_t address, uint64_t size)
{
    uint64_t rest = PAGE_SIZE - address % PAGE_SIZE;
    return size < rest ? size : rest;
}

static int64_t sys_read(uint64_t descriptor, uint64_t to, uint64_t size)
{
    struct file *file = file_of(descriptor, O_READ);
    if (!file)
        return -1;
    int64_t total = 0;
    while (size) {
        uint64_t room = in_page(to, size);
        void *at = vm_reach(&current->space, to, PTE_W); /* first, since that may sleep and even read a file */
        if (!at)
            return -1;
        if (file->inode < 0)
            return console_read(at, (int)room); /* a line, or what there is room for */
        int64_t n = file_read(file->inode, file->offset, at, room);
        file->offset += (uint64_t)n;
        total += n;
        to += room;
        size -= room;
        if ((uint64_t)n < room)
            break;
    }
    return total;
}

static int64_t sys_write(uint64_t descriptor, uint64_t from, uint64_t size)
{
    struct file *file = file_of(descriptor, O_WRITE);
    if (!file)
        return -1;
    int64_t total = 0;
    while (size) {
        uint64_t room = in_page(from, size);
        const char *at = vm_reach(&current->space, from, PTE_R);
        if (!at)
            return -1;
        int64_t n = (int64_t)room;
        if (file->inode < 0)
            for (uint64_t i = 0; i < room; i++)
                console_put(at[i]);
        else
            n = file_write(file->inode, file->offset, at, room);
        file->offset += (uint64_t)n;
        total += n;
        from += room;
        size -= room;
        if ((uint64_t)n < room)
            break;
    }
    return total;
}

static int64_t sys_seek(uint64_t descriptor, uint64_t offset, uint64_t unused2)
{
    (void)unused2;
    struct file *file = file_of(descriptor, 0);
    if (!file || file->inode < 0)
        return -1;
    file->offset = offset;
    return 0;
}

static int64_t sys_unlink(uint64_t name_address, uint64_t unused1, uint64_t unused2)
{
    (void)unused1, (void)unused2;
    char name[NAME_SIZE];
    return vm_read_text(&current->space, name, name_address, sizeof name) && file_remove(name) ? 0 : -1;
}

/* Name and size of file number `inode`: 1; 0 if there is no file of that number; -1 if there cannot be one. */
static int64_t sys_list(uint64_t inode, uint64_t to, uint64_t unused2)
{
    (void)unused2;
    if (inode >= INODES)
        return -1;
    if (!file_name((int)inode))
        return 0;
    struct listed listed = {.size = (unsigned)file_size((int)inode)};
    text_copy(listed.name, file_name((int)inode), sizeof listed.name);
    return vm_write(&current->space, to, &listed, sizeof listed) ? 1 : -1;
}

static int64_t (*const calls[])(uint64_t, uint64_t, uint64_t) = {
    [SYS_exit] = sys_exit, [SYS_fork] = sys_fork, [SYS_wait] = sys_wait, [SYS_exec] = sys_exec,
    [SYS_getpid] = sys_getpid, [SYS_yield] = sys_yield, [SYS_sleep] = sys_sleep, [SYS_uptime] = sys_uptime,
    [SYS_sbrk] = sys_sbrk, [SYS_open] = sys_open, [SYS_close] = sys_close, [SYS_read] = sys_read,
    [SYS_write] = sys_write, [SYS_seek] = sys_seek, [SYS_unlink] = sys_unlink, [SYS_list] = sys_list,
};

void syscall(struct frame *frame)
{
    uint64_t number = frame->x[A7];
    if (number >= sizeof calls / sizeof *calls || !calls[number]) {
        print("kernel: process %d (%s): there is no system call %d\n", current->pid, current->name, (int)number);
        frame->x[A0] = (uint64_t)-1;
        return;
    }
    /* Into a variable first: exec replaces the frame's contents. */
    int64_t result = calls[number](frame->x[A0], frame->x[A1], frame->x[A2]);
    frame->x[A0] = (uint64_t)result;
}
