# SPDX-License-Identifier: GPL-2.0-or-later
"""What `vmrec bench` measures and how: the table of rows, ways to run a guest, ratios of them, and the report."""
