# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking a recording: `vmrec.open` gives a Run, a Run gives Moments, and both answer questions about the whole run."""
