# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest programs: loading, names and lines, and the guests that come with vmrec."""
