/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sort: sorts the same pseudo-random array in five ways and prints a checksum of each result. */
#include "runtime/uart.h"

#define COUNT 400

static uint32_t array[COUNT];
static uint32_t spare[COUNT];

static void fill(void)
{
    uint32_t x = 2463534242u;
    for (int i = 0; i < COUNT; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        array[i] = x;
    }
}

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t kept = *a;
    *a = *b;
    *b = kept;
}

__attribute__((noinline)) static void bubble_sort(void)
{
    for (int end = COUNT - 1; end > 0; end--)
        for (int i = 0; i < end; i++)
            if (array[i] > array[i + 1])
                swap(&array[i], &array[i + 1]);
}

__attribute__((noinline)) static void insertion_sort(void)
{
    for (int i = 1; i < COUNT; i++) {
        uint32_t value = array[i];
        int hole = i;
        for (; hole > 0 && array[hole - 1] > value; hole--)
            array[hole] = array[hole - 1];
        array[hole] = value;
    }
}

__attribute__((noinline)) static void sift_down(int root, int end)
{
    for (int child; (child = 2 * root + 1) < end; root = child) {
        if (child + 1 < end && array[child + 1] > array[child])
            child++;
        if (array[root] >= array[child])
            return;
        swap(&array[root], &array[child]);
    }
}

__attribute__((noinline)) static void heap_sort(void)
{
    for (int root = COUNT / 2 - 1; root >= 0; root--)
        sift_down(root, COUNT);
    for (int end = COUNT - 1; end > 0; end--) {
        swap(&array[0], &array[end]);
        sift_down(0, end);
    }
}

__attribute__((noinline)) static void quick_sort(int first, int last)
{
    while (first < last) {
        uint32_t pivot = array[first + (last - first) / 2];
        int i = first, j = last;
        while (i <= j) {
            while (array[i] < pivot)
                i++;
            while (array[j] > pivot)
                j--;
            if (i <= j)
                swap(&array[i++], &array[j--]);
        }
        quick_sort(first, j);
        first = i;
    }
}

__attribute__((noinline)) static void merge_sort(int first, int end)
{
    if (end - first < 2)
        return;
    int middle = first + (end - first) / 2;
    merge_sort(first, middle);
    merge_sort(middle, end);
    int left = first, right = middle;
    for (int i = first; i < end; i++)
        spare[i] = right >= end || (left < middle && array[left] <= array[right]) ? array[left++] : array[right++];
    for (int i = first; i < end; i++)
        array[i] = spare[i];
}

/* Prints a checksum that depends on the order; returns 1 if the array is not sorted. */
static int check(const char *name)
{
    uint32_t sum = 0;
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        sum = sum * 31 + array[i];
        wrong |= i && array[i - 1] > array[i];
    }
    put_checksum(name, sum);
    return wrong;
}

int main(void)
{
    int wrong = 0;
    fill();
    bubble_sort();
    wrong |= check("bubble");
    fill();
    insertion_sort();
    wrong |= check("insertion");
    fill();
    heap_sort();
    wrong |= check("heap");
    fill();
    quick_sort(0, COUNT - 1);
    wrong |= check("quick");
    fill();
    merge_sort(0, COUNT);
    wrong |= check("merge");
    return wrong;
}
