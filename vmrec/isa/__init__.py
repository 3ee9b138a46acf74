# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest instruction set: one table, the names of registers, and the toy ISA defined and documented."""
