# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: board, CPU, and running, saving and restoring them. It does not know whether it is recorded."""
