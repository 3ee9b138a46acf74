# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine below the machine: the only file that imports unicorn.

The native extension links nothing. Here it is given the addresses of the unicorn library's functions once, so that
both use the one library that the `unicorn` package has loaded.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from vmrec.errors import MachineError, SetupError
from vmrec.isa.profiles import Profile
from vmrec.native import core

__all__ = ["ENGINE_VERSION", "open_core", "open_engine", "profile_bits"]

#: Behaviour that we rely on differs between versions, also between patch levels.
ENGINE_VERSION = (2, 1, 4)

_FUNCTIONS = (
    "emu_start emu_stop hook_add ctl context_alloc context_save context_restore context_free context_size "
    "reg_read reg_write mem_map_ptr"
).split()


@functools.cache
def open_core() -> tuple[Any, Any]:
    """The extension's `(lib, ffi)`, connected to the engine.

    Raises SetupError if the extension is not built, or unicorn is missing or of another version.
    """
    lib, ffi = core()
    try:
        import unicorn
        from unicorn.unicorn_py3.unicorn import uclib
    except ImportError as error:
        raise SetupError(f"unicorn cannot be imported ({error}); install it: pip install unicorn==2.1.4") from error
    version = tuple(unicorn.uc_version()[:2])
    full = tuple(int(part) for part in unicorn.__version__.split(".")[:3])
    if version != ENGINE_VERSION[:2] or full != ENGINE_VERSION:
        raise SetupError(
            f"unicorn {unicorn.__version__} is installed, vmrec needs exactly 2.1.4 (recordings depend on its "
            "behaviour): pip install unicorn==2.1.4"
        )
    lib.vm_set_api(_addresses(ffi, uclib))
    return lib, ffi


def _addresses(ffi: Any, uclib: Any) -> Any:
    """Where the engine's functions are, as the native core takes them."""
    api = ffi.new("engine_api *")
    for name in _FUNCTIONS:
        address = ctypes.cast(getattr(uclib, f"uc_{name}"), ctypes.c_void_p).value
        setattr(api, name, ffi.cast("void *", address))
    for xlen in (32, 64):  # not part of unicorn's interface: absent where its library hides what it does not promise
        check = getattr(uclib, f"helper_check_exit_request_riscv{xlen}", None)
        if check is not None:
            setattr(api, f"exit_check_{xlen}", ffi.cast("void *", ctypes.cast(check, ctypes.c_void_p).value))
    return api


def open_engine(xlen: int) -> tuple[Any, Any]:
    """A fresh engine: `(owner, handle)`. The owner must be kept as long as the handle is used."""
    _, ffi = open_core()
    import unicorn

    mode = unicorn.UC_MODE_RISCV32 if xlen == 32 else unicorn.UC_MODE_RISCV64
    try:
        owner = unicorn.Uc(unicorn.UC_ARCH_RISCV, mode)
    except unicorn.UcError as error:
        raise MachineError(f"the engine did not start: {error}") from error
    return owner, ffi.cast("void *", owner._uch.value)


def profile_bits(profile: Profile) -> int:
    """The profile's extensions as the native core's bits."""
    lib, _ = open_core()
    bits = 0
    for extension in sorted(profile.extensions):
        bit: int = lib.isa_extension_bit(extension.encode())
        if not bit:
            raise MachineError(f"the native core does not know extension {extension}")
        bits |= bit
    return bits
