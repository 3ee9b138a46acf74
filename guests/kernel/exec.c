/* SPDX-License-Identifier: GPL-2.0-or-later */
/* exec.c: makes an address space for an ELF file; its pages are read when they are touched. */
#include "kernel.h"

#define ELF_MAGIC 0x464c457fu
#define PT_LOAD 1
#define MACHINE_RISCV 243

struct elf_header {
    uint32_t magic;
    uint8_t class, order, rest[10];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, segments, sections;
    uint32_t flags;
    uint16_t size, segment_size, segment_count;
};

struct elf_segment {
    uint32_t type, flags; /* 1 execute, 2 write, 4 read */
    uint64_t offset, address, physical, file_size, memory_size, alignment;
};

static uint64_t page_down(uint64_t address) { return address & ~(PAGE_SIZE - 1); }
static uint64_t page_up(uint64_t address) { return page_down(address + PAGE_SIZE - 1); }

/* One PT_LOAD segment becomes a region; nothing is read. The file is not trusted. */
static bool add_segment(struct space *space, int inode, const struct elf_segment *segment)
{
    uint64_t limit = USER_END - USER_STACK_SIZE;
    if (!segment->memory_size)
        return true;
    if (segment->file_size > segment->memory_size || segment->address < PAGE_SIZE || segment->address >= limit
        || segment->memory_size > limit - segment->address || segment->offset > FILE_BLOCKS * BLOCK_SIZE)
        return false;
    uint64_t start = page_down(segment->address), end = page_up(segment->address + segment->memory_size);
    struct region *free = NULL;
    for (struct region *region = space->region + REGIONS - 1; region >= space->region + SEGMENTS; region--) {
        if (region->start == region->end)
            free = region;
        else if (start < region->end && region->start < end)
            return false; /* two segments on one page: whose rights would it have? */
    }
    if (!free)
        return false;
    *free = (struct region){
        .start = start, .end = end, .inode = inode,
        .rights = (segment->flags & 4 ? PTE_R : 0) | (segment->flags & 2 ? PTE_R | PTE_W : 0)
                  | (segment->flags & 1 ? PTE_X : 0),
        .data = segment->address, .bytes = segment->file_size, .offset = segment->offset,
    };
    file_hold(inode);
    struct region *heap = &space->region[HEAP];
    if (heap->start < end)
        heap->start = heap->end = end;
    return true;
}

static bool load(struct space *space, int inode, uint64_t *entry)
{
    struct elf_header header;
    if (file_read(inode, 0, &header, sizeof header) != sizeof header || header.magic != ELF_MAGIC || header.class != 2
        || header.order != 1 || header.machine != MACHINE_RISCV || header.segment_size != sizeof(struct elf_segment))
        return false;
    for (int i = 0; i < header.segment_count; i++) {
        struct elf_segment segment;
        uint64_t at = header.segments + (uint64_t)i * sizeof segment;
        if (file_read(inode, at, &segment, sizeof segment) != sizeof segment)
            return false;
        if (segment.type == PT_LOAD && !add_segment(space, inode, &segment))
            return false;
    }
    space->region[HEAP].rights = PTE_R | PTE_W;
    space->region[STACK].start = USER_END - USER_STACK_SIZE;
    space->region[STACK].end = USER_END;
    space->region[STACK].rights = PTE_R | PTE_W;
    *entry = header.entry;
    return true;
}

/* The texts at the end of the stack, argv below them. The address of argv, 0 if it did not work. */
static uint64_t push_arguments(struct space *space, int count, const char *texts, uint64_t size)
{
    uint64_t argv[MAX_ARGS + 1], base = USER_END - size, at = base;
    for (int i = 0; i < count; i++) {
        argv[i] = at;
        at += text_length(texts + (at - base)) + 1;
    }
    argv[count] = 0;
    uint64_t bytes = ((uint64_t)count + 1) * sizeof *argv, address = (base - bytes) & ~15ul;
    return vm_write(space, base, texts, size) && vm_write(space, address, argv, bytes) ? address : 0;
}

/* The caller becomes another program: same pid, same files, another address space. argc if it worked, which is what
   its main() gets in a0; -1 if not, and then the caller is as it was. */
int process_exec(const char *name, int count, const char *texts, uint64_t size)
{
    int inode = file_find(name);
    struct space space;
    if (inode < 0 || !vm_new(&space))
        return -1;
    file_hold(inode); /* while we sleep nobody may remove it */
    uint64_t entry = 0, argv = 0;
    if (load(&space, inode, &entry))
        argv = push_arguments(&space, count, texts, size);
    file_release(inode);
    if (!argv) {
        vm_destroy(&space);
        return -1;
    }
    vm_switch(space.root, current->pid);
    vm_destroy(&current->space);
    current->space = space;
    text_copy(current->name, name, sizeof current->name);
    struct frame *frame = current->frame;
    memset(frame, 0, sizeof *frame);
    frame->pc = entry;
    frame->status = SSTATUS_SPIE; /* SPP is 0: sret goes to user mode, with interrupts on */
    frame->x[SP] = argv;
    frame->x[A1] = argv;
    frame->x[A0] = (uint64_t)count;
    return count;
}
