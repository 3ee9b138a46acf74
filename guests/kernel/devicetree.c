/* SPDX-License-Identifier: GPL-2.0-or-later */
/* devicetree.c: reads the four things of the device tree that this kernel needs. */
#include "kernel.h"

/*
 * A flattened device tree is a header, a block of structure and a block of names; all numbers are big-endian.
 *
 *   header      magic, size of all, offset of structure, offset of names, ...
 *   structure   1 "name\0" (padded to 4)      a node begins
 *               2                             a node ends
 *               3 length, offset of name, value (padded to 4)   a property
 *               4                             nothing
 *               9                             the end
 */
enum { BEGIN_NODE = 1, END_NODE, PROPERTY, NOTHING, END = 9 };
#define MAGIC 0xd00dfeedu
#define LARGEST (2u << 20)

static uint32_t big32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t big64(const uint8_t *at) { return (uint64_t)big32(at) << 32 | big32(at + 4); }

/* "rv64imafdc_zicsr_sstc" holds the extension "sstc". */
static bool isa_has(const char *isa, const char *extension)
{
    size_t length = text_length(extension);
    for (; *isa; isa++)
        if (isa[0] == '_' && memcmp(isa + 1, extension, length) == 0 && (isa[length + 1] == '_' || !isa[length + 1]))
            return true;
    return false;
}

/* `node`: the name of the node at depth 2 (a child of the root), such as "memory@80000000". */
static void property(const char *node, const char *name, const uint8_t *value, uint32_t length)
{
    if (memcmp(node, "memory@", 7) == 0 && text_equal(name, "reg") && length >= 16) {
        uint64_t start = big64(value), size = big64(value + 8);
        if (start == RAM_START)
            machine.ram_end = start + size < RAM_LIMIT ? start + size : RAM_LIMIT;
    } else if (text_equal(node, "cpus") && text_equal(name, "timebase-frequency") && length == 4) {
        machine.timebase = big32(value);
    } else if (text_equal(node, "cpus") && text_equal(name, "riscv,isa") && length && !value[length - 1]) {
        machine.sstc = isa_has((const char *)value, "sstc");
    } else if (text_equal(node, "chosen") && text_equal(name, "bootargs") && length && !value[length - 1]) {
        text_copy(machine.arguments, (const char *)value, sizeof machine.arguments);
    }
}

void devicetree_read(const void *blob)
{
    const uint8_t *tree = blob;
    if (!tree || big32(tree) != MAGIC || big32(tree + 4) > LARGEST)
        panic("a1 does not point to a device tree");
    const uint8_t *end = tree + big32(tree + 4), *at = tree + big32(tree + 8);
    const char *names = (const char *)tree + big32(tree + 12);
    const char *node = "";
    int depth = 0;
    while (at + 12 <= end) {
        uint32_t token = big32(at);
        at += 4;
        if (token == BEGIN_NODE) {
            if (++depth == 2)
                node = (const char *)at;
            at += (text_length((const char *)at) + 4) & ~3ul;
        } else if (token == END_NODE) {
            depth--;
        } else if (token == PROPERTY) {
            uint32_t length = big32(at);
            if (depth >= 2 && length <= (uint64_t)(end - at) - 8)
                property(node, names + big32(at + 4), at + 8, length);
            at += 8 + ((length + 3ul) & ~3ul);
        } else if (token != NOTHING) {
            break;
        }
    }
    if (machine.ram_end <= KERNEL_START)
        panic("the device tree tells of no memory at 0x80000000");
}
