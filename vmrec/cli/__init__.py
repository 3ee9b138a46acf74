# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one file per verb, and the only place that prints or reads the environment."""
