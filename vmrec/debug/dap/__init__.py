# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debug Adapter Protocol over a target, for editors: VS Code, nvim-dap, dape, Zed, Helix and others.

    bytes ──messages.py──▶ request ──adapter.py──▶ Target
                                       ├── breakpoints.py  what is set, and which hit belongs to what
                                       ├── variables.py    registers, CSRs, time; what expressions are
                                       └── code.py         disassembly, sources
    serve.py: one client, from the first byte to the last

Source: the Debug Adapter Protocol specification, version 1.71.
"""
