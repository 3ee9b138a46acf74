/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A msgpack writer: unsigned integers, strings, bins, arrays and maps, always in the shortest form.
 *
 * The C loop writes what the trace holds; packing in Python costs some thirty times as much per object. Reading is
 * msgpack-python's business. Format: https://github.com/msgpack/msgpack/blob/master/spec.md
 */
#include <stdlib.h>

#include "internal.h"

/* Room for `length` more bytes at the end; out of memory ends the process, as there is no state to save then. */
uint8_t *buffer_room(buffer_t *out, size_t length)
{
    if (out->length + length > out->capacity) {
        size_t capacity = out->capacity ? out->capacity : 4096;
        while (capacity < out->length + length)
            capacity *= 2;
        out->data = realloc(out->data, capacity);
        if (!out->data)
            abort();
        out->capacity = capacity;
    }
    return out->data + out->length;
}

static void put(buffer_t *out, uint8_t tag, uint64_t value, uint32_t bytes)
{
    uint8_t *at = buffer_room(out, 1 + bytes);
    at[0] = tag;
    for (uint32_t i = 0; i < bytes; i++)
        at[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    out->length += 1 + bytes;
}

void mp_uint(buffer_t *out, uint64_t value)
{
    if (value < 0x80)
        put(out, (uint8_t)value, 0, 0);
    else if (value <= 0xff)
        put(out, 0xcc, value, 1);
    else if (value <= 0xffff)
        put(out, 0xcd, value, 2);
    else if (value <= 0xffffffff)
        put(out, 0xce, value, 4);
    else
        put(out, 0xcf, value, 8);
}

void mp_bin(buffer_t *out, const void *data, size_t length)
{
    if (length <= 0xff)
        put(out, 0xc4, length, 1);
    else if (length <= 0xffff)
        put(out, 0xc5, length, 2);
    else
        put(out, 0xc6, length, 4);
    memcpy(buffer_room(out, length), data, length);
    out->length += length;
}

void mp_str(buffer_t *out, const char *text)
{
    size_t length = strlen(text);
    if (length < 32)
        put(out, (uint8_t)(0xa0 | length), 0, 0);
    else
        put(out, 0xd9, length, 1); /* all our names are shorter than 256 bytes */
    memcpy(buffer_room(out, length), text, length);
    out->length += length;
}

void mp_array(buffer_t *out, uint32_t count)
{
    if (count < 16)
        put(out, (uint8_t)(0x90 | count), 0, 0);
    else if (count <= 0xffff)
        put(out, 0xdc, count, 2);
    else
        put(out, 0xdd, count, 4);
}

void mp_map(buffer_t *out, uint32_t count)
{
    if (count < 16)
        put(out, (uint8_t)(0x80 | count), 0, 0);
    else if (count <= 0xffff)
        put(out, 0xde, count, 2);
    else
        put(out, 0xdf, count, 4);
}

static size_t give(buffer_t *buffer, uint8_t *out)
{
    size_t length = buffer->length;
    memcpy(out, buffer->data, length);
    free(buffer->data);
    return length;
}

size_t mp_test_uint(uint8_t *out, uint64_t value)
{
    buffer_t buffer = {0};
    mp_uint(&buffer, value);
    return give(&buffer, out);
}

size_t mp_test_bin(uint8_t *out, const uint8_t *data, size_t length)
{
    buffer_t buffer = {0};
    mp_bin(&buffer, data, length);
    return give(&buffer, out);
}

size_t mp_test_str(uint8_t *out, const char *text)
{
    buffer_t buffer = {0};
    mp_str(&buffer, text);
    return give(&buffer, out);
}

size_t mp_test_array(uint8_t *out, uint32_t count)
{
    buffer_t buffer = {0};
    mp_array(&buffer, count);
    return give(&buffer, out);
}

size_t mp_test_map(uint8_t *out, uint32_t count)
{
    buffer_t buffer = {0};
    mp_map(&buffer, count);
    return give(&buffer, out);
}
