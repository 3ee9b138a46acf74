# SPDX-License-Identifier: GPL-2.0-or-later
"""GDB's remote serial protocol over a target: the codec, the requests, and what GDB is told about the machine.

    bytes ──packets.py──▶ packet ──stub.py──▶ Target
                                     ├── description.py  registers and memory, as XML
                                     ├── files.py        files that GDB reads through us: the guest's ELF
                                     ├── agent.py        conditions that GDB has compiled
                                     └── script.py       commands for GDB itself

Source: the GDB manual, appendices E (remote protocol), F (agent expressions), G (target descriptions).
"""
