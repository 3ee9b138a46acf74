/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bank.c: two processes pay into one account, which is a file, and nobody locks it: now and then money is lost. */
#include "user.h"

#define TELLERS 2
#define PAYMENTS 20u /* of each teller */
#define WORK 20000u  /* rounds of other work before each payment, about 4 instructions each */

static int account;               /* descriptor of the file */
static unsigned balance;          /* what this process last saw there: its own, whatever the others do */
static volatile unsigned earned;

static void load(void)
{
    if (seek(account, 0) || read(account, &balance, sizeof balance) != sizeof balance)
        fail("bank: read");
}

static void store(void)
{
    if (seek(account, 0) || write(account, &balance, sizeof balance) != sizeof balance)
        fail("bank: write");
}

/* The bug: if the other teller has his turn between load and store, what he pays in meanwhile is overwritten. */
static void pay_in(void)
{
    load();
    balance = balance + 1;
    store();
}

/* Where nearly all of the time goes, so that nearly all switches do no harm. */
static void work(void)
{
    unsigned sum = earned;
    for (unsigned i = 0; i < WORK; i++)
        sum = sum * 1664525u + 1013904223u;
    earned = sum;
}

static void teller(unsigned payments)
{
    account = open("account", O_READ | O_WRITE); /* each its own, and its own offset */
    if (account < 0)
        fail("bank: no account");
    for (unsigned i = 0; i < payments; i++) {
        work();
        pay_in();
    }
    exit(0);
}

int main(int argc, char **argv)
{
    unsigned payments = argc > 1 ? number_of(argv[1], PAYMENTS) : PAYMENTS;
    account = open("account", O_READ | O_WRITE | O_CREATE | O_TRUNCATE);
    if (account < 0)
        fail("bank: cannot open the account");
    store();
    print("bank: %d tellers, %u payments each\n", TELLERS, payments);
    for (int i = 0; i < TELLERS; i++)
        if (!fork())
            teller(payments);
    for (int i = 0; i < TELLERS; i++)
        wait(NULL);
    load();
    unsigned expected = TELLERS * payments;
    print("bank: balance %u of %u: %s\n", balance, expected, balance == expected ? "good" : "MONEY LOST");
    return balance != expected;
}
