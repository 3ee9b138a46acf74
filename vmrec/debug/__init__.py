# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings for debuggers: a target that moves both ways, one table of commands, and the protocols that show them.

    gdb client ──bytes──▶ server ──packets──▶ gdb/   ─┐
                                                      ├──▶ Target ──▶ Timeline
    DAP client ──bytes──▶ server ──messages─▶ dap/   ─┘      ▲
                                              commands.py ───┘   what people type, the same in both
"""
