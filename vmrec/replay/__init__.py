# SPDX-License-Identifier: GPL-2.0-or-later
"""Replay: a trace's events go into a machine, and what comes out is compared with the trace."""
