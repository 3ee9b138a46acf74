/* SPDX-License-Identifier: GPL-2.0-or-later */
/* board: asks what is on the board, and what the registers of supervisor mode, PMP and PLIC take; prints each answer. */
#include "runtime/plic.h"
#include "runtime/uart.h"
#include "runtime/virtio.h"

#define DEVICE_FEATURES 0x010
#define DEVICE_FEATURES_SEL 0x014
#define CONFIG_WORDS 8
#define PLIC_PENDING 0x001000
#define PLIC_CONTEXT 0x1000 /* from machine mode's threshold to supervisor mode's */
#define UART_SOURCE 10
#define IER 1
#define IER_THR_EMPTY 2
#define MSTATUS_MPRV (1u << 17)
#define PMP_READ_NAPOT 0x19u
#define SATP_MODES 16

static volatile uint32_t traps;

/* What is not there traps: the instruction is passed over. */
__attribute__((interrupt("machine"), aligned(4))) static void on_trap(void)
{
    uintptr_t pc = csr_read(mepc);
    traps++;
    csr_write(mepc, pc + ((*(const uint16_t *)pc & 3) == 3 ? 4 : 2));
}

static void answer(const char *name, uint64_t value)
{
    put_text(name);
    put_char(' ');
    put_hex64(value);
    put_text(traps ? " trap\n" : "\n");
    traps = 0;
}

/* csr_read, of a register that may not exist: 0 then. */
#define ask(name) \
    ({ uintptr_t value_ = 0; __asm__ volatile("csrr %0, " #name : "+r"(value_) : : "memory"); value_; })

/* What a register holds, and what it takes of all ones and of all zeros; it is as before afterwards. */
#define ASK(name) \
    do { \
        uintptr_t before_ = ask(name); \
        answer(#name, before_); \
        csr_write(name, ~(uintptr_t)0); \
        answer("  takes", ask(name)); \
        csr_write(name, 0); \
        answer("  keeps", ask(name)); \
        csr_write(name, before_); \
        traps = 0; \
    } while (0)

static void ask_slot(uintptr_t base)
{
    answer("slot", read32(base + MAGIC_VALUE));
    answer("  version", read32(base + VERSION));
    answer("  device", read32(base + DEVICE_ID));
    for (uint32_t half = 0; half < 2; half++) {
        write32(base + DEVICE_FEATURES_SEL, half);
        answer("  features", read32(base + DEVICE_FEATURES));
    }
    answer("  queue", read32(base + QUEUE_NUM_MAX));
    for (uint32_t word = 0; word < CONFIG_WORDS; word++)
        answer("  config", read32(base + CONFIG + 4 * word));
}

/* The UART's interrupt stays up: is it pending again when the one before is complete? Nothing is sent meanwhile. */
static void ask_plic(void)
{
    uint32_t seen[4];
    plic_enable(UART_SOURCE);
    write8(UART_BASE + IER, IER_THR_EMPTY);
    seen[0] = read32(PLIC_BASE + PLIC_PENDING);
    seen[1] = plic_claim();
    seen[2] = read32(PLIC_BASE + PLIC_PENDING);
    plic_complete(UART_SOURCE);
    seen[3] = read32(PLIC_BASE + PLIC_PENDING);
    write8(UART_BASE + IER, 0);
    answer("pending", seen[0]);
    answer("claimed", seen[1]);
    answer("pending", seen[2]);
    answer("completed", seen[3]);
    write32(PLIC_BASE + PLIC_THRESHOLD + PLIC_CONTEXT, 5);
    answer("threshold", read32(PLIC_BASE + PLIC_THRESHOLD + PLIC_CONTEXT));
}

/* A load with the rights of user mode. */
static void load_as_user(const char *name, const volatile uint32_t *address)
{
    uint32_t value = 0;
    csr_clear(mstatus, MSTATUS_MPP);
    csr_set(mstatus, MSTATUS_MPRV);
    __asm__ volatile("lw %0, 0(%1)" : "+r"(value) : "r"(address) : "memory");
    csr_clear(mstatus, MSTATUS_MPRV);
    answer(name, value);
}

static void ask_pmp(void)
{
    static const uint32_t here __attribute__((aligned(4096))) = 0x600d;
    uintptr_t page = (uintptr_t)&here >> 2;
    load_as_user("without an entry", &here);
    csr_write(pmpaddr0, page | 0x1ff);
    csr_write(pmpcfg0, PMP_READ_NAPOT);
    answer("entry", ask(pmpaddr0));
    load_as_user("with one", &here);
    csr_write(pmpaddr0, (page + 0x400) | 0x1ff);
    load_as_user("of another page", &here);
    csr_write(pmpcfg0, 0x12); /* NA4, to write but not to read */
    answer("legal", ask(pmpcfg0));
    csr_write(pmpcfg0, 0);
    ASK(pmpaddr0);
    ASK(pmpaddr15);
}

int main(void)
{
    csr_write(mtvec, on_trap);
    for (uint32_t slot = 0; slot < VIRTIO_SLOTS; slot++)
        ask_slot(VIRTIO_BASE + slot * PAGE);
    ask_plic();
    answer("misa", ask(misa));
    ASK(medeleg);
    ASK(mideleg);
    ASK(mie);
    ASK(mip);
    ASK(mcounteren);
    ASK(menvcfg);
    ASK(scounteren);
    ASK(senvcfg);
    ASK(stvec);
    ASK(sscratch);
    ASK(sepc);
    ASK(scause);
    ASK(stval);
    ASK(stimecmp);
    ASK(tselect);
    ASK(tdata1);
    ASK(tinfo);
    for (uintptr_t mode = 0; mode < SATP_MODES; mode++) {
        csr_write(satp, 0);
        csr_write(satp, mode << 60 | 0x1234);
        answer("satp", ask(satp));
    }
    csr_write(satp, 0);
    ask_pmp();
    return 0;
}
