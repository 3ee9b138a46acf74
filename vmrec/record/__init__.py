# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording: the live world's events go into a machine and, with its outputs, into a trace."""
