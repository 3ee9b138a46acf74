/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting without a call: the head of a translated block, rewritten in place.
 *
 * The engine calls the block hook (engine.c) from the first instructions of every translation. A call per block costs
 * a third of the speed of a short loop, whatever the hook does. So when the hook is called for the first time by a
 * translation, and the bytes around its return address are exactly those that the engine emits for such a call, the
 * hook replaces them by a countdown that calls only when it runs out:
 *
 *     what the engine wrote                          what stands there afterwards
 *     ------------------------------------------     ------------------------------------------
 *     load  uc, %rdi                                 load  in, %rdi
 *     load  pc, %rsi                                 movl  $tag, TAG(%rdi)
 *     mov   $size, %edx                              subl  $count, LEFT(%rdi)
 *     load  in, %rcx                                 jb    1f
 *                                                    jmp   2f
 *     call  on_block                             1:  call  *COUNTDOWN_OVER(%rdi)
 *     load  uc, %rdi          ◀── return address     (these three stay as they are)
 *     xor   %esi, %esi
 *     call  helper_check_exit_request
 *     ...                                        2:  ...
 *
 * `load` is one of the four ways in which the engine loads an address: mov of 32 bits without and with sign, lea from
 * %rip, mov of 64 bits. Its calls are direct, or through a constant if the function is far away.
 *
 * Behind every load and store the engine checks too whether somebody has asked it to stop, with the same three
 * instructions. Nobody does that but from the call in a head, so all of those of the translation are jumped over as well:
 *
 *     load  uc, %rdi                                 jmp   3f
 *     xor   %esi, %esi
 *     call  helper_check_exit_request
 *     ...                                        3:  ...
 *
 * Why this is exact. `tag` names the block that runs now, its address and its count, for whoever has to find the
 * position of a fault in its middle. `left` is the number of steps up to which nothing needs to be decided; a block
 * that would pass it calls, and engine.c decides as the hook would. The check behind the call can be jumped over:
 * only a stop from inside the call makes it do something. %rdi, the flags and the other registers of a call are free:
 * they do not live across the calls that stood here. An access that the door refuses leaves the translation at once,
 * and needs no check behind it.
 *
 * Why this is safe. Nothing is written before all bytes have been compared with the expected ones, with our own
 * addresses and the block's own pc and size among them, and before the kernel has confirmed that the buffer can be
 * written. The writer is the thread that runs the code, inside a call made from it, and where it returns to is not
 * touched; what it changes behind that has not begun to run. A check that belongs to a head, of the next translation,
 * is known by the call before it and stays. A head is never written to again: a block whose code or meaning changes has its translation dropped by the
 * engine, and what the engine translates anew begins with a call again. The first head that looks different (another
 * build of the engine, another host) ends all rewriting in this machine: equal results, and slower.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#if defined(__x86_64__) && !defined(_WIN32)

#define RCX 1u
#define RSI 6u
#define RDI 7u
#define LOAD_MAX 10u
#define HEAD_MAX (3 * LOAD_MAX + 5 + 6)
/* Bytes behind a head in which its translation's checks are looked for; one that is missed costs time only. */
#define CHECKS_FIXED 256u
#define CHECKS_PER_BYTE 80u /* of guest code: a load or store in two bytes comes to about as much */
#define CHECKS_WITHIN 8192u

_Static_assert(offsetof(struct vm_internal, left) < 128 && offsetof(struct vm_internal, tag) < 128
                   && offsetof(struct vm_internal, countdown_over) < 128,
               "a rewritten head reaches them with one byte of offset");

static uint8_t *put32(uint8_t *out, uint8_t opcode, uint32_t value)
{
    *out++ = opcode;
    memcpy(out, &value, 4);
    return out + 4;
}

/* The instruction that loads `value` into a register, as the engine emits it at address `at`. Returns its length. */
static uint32_t load(uint8_t *out, const uint8_t *at, uint32_t reg, uint64_t value)
{
    int64_t distance = (int64_t)(value - ((uintptr_t)at + 7));
    if (value <= UINT32_MAX) {
        put32(out, (uint8_t)(0xb8 | reg), (uint32_t)value);
        return 5;
    }
    out[0] = 0x48;
    if ((int64_t)value == (int32_t)value) {
        out[1] = 0xc7;
        put32(out + 2, (uint8_t)(0xc0 | reg), (uint32_t)value);
        return 7;
    }
    if (distance == (int32_t)distance) {
        out[1] = 0x8d;
        put32(out + 2, (uint8_t)(reg << 3 | 5), (uint32_t)distance);
        return 7;
    }
    out[1] = (uint8_t)(0xb8 | reg);
    memcpy(out + 2, &value, 8);
    return LOAD_MAX;
}

/* Length of that instruction if it stands right before `end`, else 0. */
static uint32_t load_before(const uint8_t *end, uint32_t reg, uint64_t value)
{
    static const uint32_t lengths[] = {5, 7, LOAD_MAX};
    uint8_t expected[LOAD_MAX];
    for (int i = 0; i < 3; i++)
        if (load(expected, end - lengths[i], reg, value) == lengths[i] && !memcmp(end - lengths[i], expected, lengths[i]))
            return lengths[i];
    return 0;
}

/* Length of a call of `function` whose last byte is before `end`, as the engine emits it. */
static uint32_t call_length(const uint8_t *end, const void *function)
{
    int64_t distance = (int64_t)((uintptr_t)function - (uintptr_t)end);
    return distance == (int32_t)distance ? 5 : 6;
}

/* Does that call stand there? A far one goes through a constant that the engine put behind the translation. */
static int is_call(const uint8_t *end, const void *function)
{
    int32_t distance;
    memcpy(&distance, end - 4, 4);
    if (call_length(end, function) == 5)
        return end[-5] == 0xe8 && end + distance == function;
    return end[-6] == 0xff && end[-5] == 0x15 && !memcmp(end + distance, &function, 8);
}

/* Where the head begins whose call returns to `back`, and where it ends; NULL if it is not what the engine emits. */
static uint8_t *find_head(const struct vm_internal *in, uint8_t *back, uint64_t pc, uint32_t size, uint8_t **end)
{
    uint8_t expected[LOAD_MAX], *at = back - call_length(back, in->hook);
    uint32_t length = load_before(at, RCX, (uintptr_t)in);
    at -= length + 5;
    put32(expected, 0xba, size);
    if (!length || memcmp(at, expected, 5) || !(length = load_before(at, RSI, pc)))
        return NULL;
    at -= length;
    if (!(length = load_before(at, RDI, (uintptr_t)in->uc)))
        return NULL;
    at -= length;
    length = load(expected, back, RDI, (uintptr_t)in->uc);
    if (memcmp(back, expected, length) || back[length] != 0x33 || back[length + 1] != 0xf6)
        return NULL;
    *end = back + length + 2 + 5;
    *end = back + length + 2 + call_length(*end, in->exit_check);
    return is_call(back, in->hook) && is_call(*end, in->exit_check) ? at : NULL;
}

/* Asks the kernel, which answers with an error where a store would be a signal: the bytes are read over themselves. */
static int is_writable(uint8_t *at, size_t length)
{
    int ends[2], good;
    if (pipe(ends))
        return 0;
    good = write(ends[1], at, length) == (ssize_t)length && read(ends[0], at, length) == (ssize_t)length;
    close(ends[0]);
    close(ends[1]);
    return good;
}

/* Where the head ends, which is rewritten now; NULL if it is not. */
static uint8_t *rewrite(struct vm_internal *in, uint8_t *back, uint64_t pc, uint32_t size, uint32_t count)
{
    uint8_t head[HEAD_MAX], *end, *begin = find_head(in, back, pc, size, &end);
    if (!begin || (in->inlining == INLINE_WANTED && !is_writable(begin, (size_t)(back - begin))))
        return NULL;
    uint8_t *out = head + load(head, begin, RDI, (uintptr_t)in), *call = head + (back - begin) - 3;
    if (call - out < 7 + 4 + 2 + 2) /* a lea that reached `in` from where it stood may not reach it from `begin` */
        return NULL;
    *out++ = 0xc7;
    *out++ = 0x40 | RDI;
    out = put32(out, (uint8_t)offsetof(struct vm_internal, tag), inline_tag(pc, count));
    *out++ = 0x83;
    *out++ = 0x40 | 5 << 3 | RDI;
    *out++ = (uint8_t)offsetof(struct vm_internal, left);
    *out++ = (uint8_t)count;
    *out++ = 0x72;
    *out = (uint8_t)(call - (out + 1));
    out++;
    *out++ = 0xeb;
    *out = (uint8_t)(end - (begin + (out + 1 - head)));
    out++;
    memset(out, 0x90, (size_t)(call - out));
    call[0] = 0xff;
    call[1] = 0x40 | 2 << 3 | RDI;
    call[2] = (uint8_t)offsetof(struct vm_internal, countdown_over);
    memcpy(begin, head, (size_t)(back - begin));
    return end;
}

/* How much can be read from `at` on: `most` bytes, or less. */
static size_t readable(uint8_t *at, size_t most)
{
    uint8_t copy[CHECKS_WITHIN];
    int ends[2];
    if (pipe(ends))
        return 0;
    ssize_t length = write(ends[1], at, most);
    if (length > 0)
        length = read(ends[0], copy, (size_t)length);
    close(ends[0]);
    close(ends[1]);
    return length > 0 ? (size_t)length : 0;
}

/* Does the call of a head end at `end`? Of one as the engine wrote it, or a rewritten one. */
static int ends_a_head(const struct vm_internal *in, const uint8_t *end)
{
    return is_call(end, in->hook)
           || (end[-3] == 0xff && end[-2] == (0x40 | 2 << 3 | RDI)
               && end[-1] == offsetof(struct vm_internal, countdown_over));
}

#define CLEAR_ESI 2 /* bytes of xor esi, esi: 33 f6 */

/* The next of them; by its second byte, which there are few of. memmem looks at every byte of a short text. */
static uint8_t *find_clear_esi(uint8_t *at, const uint8_t *limit)
{
    while (limit - at >= CLEAR_ESI) {
        uint8_t *found = memchr(at + 1, 0xf6, (size_t)(limit - at - 1));
        if (!found || found[-1] == 0x33)
            return found ? found - 1 : NULL;
        at = found;
    }
    return NULL;
}

/* Jumps over the checks of the translation, of `size` bytes of guest code, whose head ends at `at`. */
static void drop_checks(struct vm_internal *in, uint8_t *at, uint32_t size)
{
    size_t within = CHECKS_FIXED + (size_t)size * CHECKS_PER_BYTE;
    if (within > CHECKS_WITHIN)
        within = CHECKS_WITHIN;
    if (at < in->readable_from || at + within > in->readable_to) {
        in->readable_from = at;
        in->readable_to = at + readable(at, CHECKS_WITHIN);
    }
    uint8_t *limit = at + within < in->readable_to ? at + within : in->readable_to, *found;
    while (at + CLEAR_ESI + 6 <= limit && (found = find_clear_esi(at, limit)) != NULL) {
        uint8_t *end = found + CLEAR_ESI + call_length(found + CLEAR_ESI + 5, in->exit_check);
        uint32_t length = load_before(found, RDI, (uintptr_t)in->uc);
        at = found + 1;
        if (end > limit || !length || !is_call(end, in->exit_check))
            continue;
        if (ends_a_head(in, found - length))
            return; /* of the next translation */
        found -= length;
        found[0] = 0xeb;
        found[1] = (uint8_t)(end - (found + 2));
        at = end;
        in->vm->dropped_checks++;
    }
}

/* The hook was called for a block that may run, and returns to `back` in its translation. */
void inline_count(struct vm_internal *in, void *back, uint64_t pc, uint32_t size, uint32_t count)
{
    if (!pc)
        return; /* the engine clears the register then */
    uint8_t *end = rewrite(in, back, pc, size, count);
    if (end) {
        in->inlining = INLINE_PROVED;
        in->vm->inlined_blocks++;
        drop_checks(in, end, size);
    } else {
        in->inlining = INLINE_OFF;
    }
}

#else

void inline_count(struct vm_internal *in, void *back, uint64_t pc, uint32_t size, uint32_t count)
{
    (void)back, (void)pc, (void)size, (void)count;
    in->inlining = INLINE_OFF;
}

#endif
