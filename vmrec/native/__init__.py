# SPDX-License-Identifier: GPL-2.0-or-later
"""The native core: the C hot loop, its header and its build, and the one door to them from Python.

`core()` returns the extension's `(lib, ffi)`; nothing else imports it. `vmrec.h` in this folder is the reference of
what is in `lib`. mypy sees both as Any, since cffi makes them at build time.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

from vmrec.errors import SetupError
from vmrec.native.sources import sources_hash

__all__ = ["core"]


@functools.cache
def core() -> tuple[Any, Any]:
    """The compiled extension's `(lib, ffi)`.

    Raises SetupError if it was not built for this Python, or from other sources than are here: there is no slower
    substitute.
    """
    try:
        module = importlib.import_module("vmrec.native._vmrec")
    except ImportError as error:
        raise SetupError(
            f"the compiled part of vmrec is missing ({error}). In a checkout run `python -m pip install -e .`; "
            "it needs: sudo apt install git gcc python3-dev python3-venv"
        ) from error
    here = sources_hash(Path(__file__).parents[1])
    built = module.ffi.string(module.lib.vm_sources()).decode() if hasattr(module.lib, "vm_sources") else None
    if here is not None and built != here:
        raise SetupError(
            "the compiled part of vmrec was built from other sources than this checkout has now: it was changed or "
            "pulled since. Run `python -m pip install -e .` again"
        )
    return module.lib, module.ffi
