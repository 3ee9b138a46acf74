# SPDX-License-Identifier: GPL-2.0-or-later
"""Floating point by the manual, in exact fractions: what an instruction gives and which flags it raises.

Written for reading, and shares nothing with native/float.c. Sources: the unprivileged manual, chapters 11 and 12, and
IEEE 754-2008.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

NV, DZ, OF, UF, NX = 16, 8, 4, 2, 1
RNE, RTZ, RDN, RUP, RMM = range(5)


@dataclass(frozen=True)
class Format:
    """The widths of a format's exponent and fraction."""

    exponent: int
    fraction: int

    @property
    def bias(self) -> int:
        return (1 << self.exponent - 1) - 1

    @property
    def size(self) -> int:
        return 1 + self.exponent + self.fraction

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent) - 1) << self.fraction

    @property
    def nan(self) -> int:
        return self.infinity | 1 << self.fraction - 1


SINGLE, DOUBLE = Format(8, 23), Format(11, 52)


def sign_of(bits: int, of: Format) -> int:
    return bits >> of.size - 1


def magnitude(bits: int, of: Format) -> int:
    return bits & (1 << of.size - 1) - 1


def is_nan(bits: int, of: Format) -> bool:
    return magnitude(bits, of) > of.infinity


def is_signalling(bits: int, of: Format) -> bool:
    return is_nan(bits, of) and not bits >> of.fraction - 1 & 1


def is_infinite(bits: int, of: Format) -> bool:
    return magnitude(bits, of) == of.infinity


def value(bits: int, of: Format) -> Fraction:
    """The number, of bits that are one."""
    exponent, fraction = divmod(magnitude(bits, of), 1 << of.fraction)
    if exponent:
        fraction += 1 << of.fraction
    scale = max(exponent, 1) - of.bias - of.fraction
    number = Fraction(fraction) * Fraction(2) ** scale
    return -number if sign_of(bits, of) else number


def whole(number: Fraction, mode: int) -> int:
    """The integer that a number is rounded to."""
    down = math.floor(number)
    rest = number - down
    match mode:
        case 0:
            up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down % 2 == 1)
        case 1:
            up = number < 0 and rest > 0
        case 2:
            up = False
        case 3:
            up = rest > 0
        case _:
            up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and number > 0)
    return down + up


def fit(number: Fraction, to: Format, mode: int) -> tuple[int, int]:
    """A number other than 0 in a format, and the flags."""
    sign = 1 << to.size - 1 if number < 0 else 0
    exponent = math.floor(math.log2(abs(number.numerator)) - math.log2(number.denominator))
    while Fraction(2) ** exponent > abs(number):
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(number):
        exponent += 1
    unbounded = abs(whole(number / Fraction(2) ** (exponent - to.fraction), mode)) * Fraction(2) ** (
        exponent - to.fraction
    )
    least = Fraction(2) ** (1 - to.bias)
    scale = Fraction(2) ** (max(exponent, 1 - to.bias) - to.fraction)
    rounded = abs(whole(number / scale, mode)) * scale
    flags = NX if rounded != abs(number) else 0
    if flags and unbounded < least:
        flags |= UF
    if rounded >= Fraction(2) ** (to.bias + 1):
        to_largest = mode == RTZ or mode == (RUP if sign else RDN)
        return sign | (to.infinity - to_largest), OF | NX
    if rounded < least:
        return sign | int(rounded / Fraction(2) ** (1 - to.bias - to.fraction)), flags
    exponent = max(exponent, 1 - to.bias)
    if rounded >= Fraction(2) ** (exponent + 1):
        exponent += 1
    fraction = int(rounded / Fraction(2) ** (exponent - to.fraction)) - (1 << to.fraction)
    return sign | exponent + to.bias << to.fraction | fraction, flags


def fused(a: int, b: int, c: int, of: Format, mode: int) -> tuple[int, int]:
    """a * b + c"""
    impossible = (is_infinite(a, of) and magnitude(b, of) == 0) or (magnitude(a, of) == 0 and is_infinite(b, of))
    if any(is_nan(bits, of) for bits in (a, b, c)) or impossible:
        invalid = impossible or any(is_signalling(bits, of) for bits in (a, b, c))
        return of.nan, NV if invalid else 0
    sign = sign_of(a, of) ^ sign_of(b, of)
    if is_infinite(a, of) or is_infinite(b, of):
        if is_infinite(c, of) and sign_of(c, of) != sign:
            return of.nan, NV
        return sign << of.size - 1 | of.infinity, 0
    if is_infinite(c, of):
        return c, 0
    total = value(a, of) * value(b, of) + value(c, of)
    if total:
        return fit(total, of, mode)
    zeros = (sign, sign_of(c, of))
    product_is_zero = magnitude(a, of) == 0 or magnitude(b, of) == 0
    alike = product_is_zero and magnitude(c, of) == 0 and zeros[0] == zeros[1]
    return (sign if alike else mode == RDN) << of.size - 1, 0


def add(a: int, b: int, of: Format, mode: int) -> tuple[int, int]:
    if is_nan(a, of) or is_nan(b, of):
        return of.nan, NV if is_signalling(a, of) or is_signalling(b, of) else 0
    return fused(a, of.bias << of.fraction, b, of, mode)


def multiply(a: int, b: int, of: Format, mode: int) -> tuple[int, int]:
    sign = sign_of(a, of) ^ sign_of(b, of)
    result, flags = fused(a, b, sign << of.size - 1, of, mode)
    return result, flags


def divide(a: int, b: int, of: Format, mode: int) -> tuple[int, int]:
    sign = (sign_of(a, of) ^ sign_of(b, of)) << of.size - 1
    if is_nan(a, of) or is_nan(b, of):
        return of.nan, NV if is_signalling(a, of) or is_signalling(b, of) else 0
    if (is_infinite(a, of) and is_infinite(b, of)) or magnitude(a, of) == magnitude(b, of) == 0:
        return of.nan, NV
    if is_infinite(a, of):
        return sign | of.infinity, 0
    if is_infinite(b, of) or magnitude(a, of) == 0:
        return sign, 0
    if magnitude(b, of) == 0:
        return sign | of.infinity, DZ
    return fit(value(a, of) / value(b, of), of, mode)


def square_root(a: int, of: Format, mode: int) -> tuple[int, int]:
    if is_nan(a, of):
        return of.nan, NV if is_signalling(a, of) else 0
    if magnitude(a, of) == 0:
        return a, 0
    if sign_of(a, of):
        return of.nan, NV
    if is_infinite(a, of):
        return a, 0
    number = value(a, of)
    scaled = number * Fraction(4) ** 1200  # an integer, and its root has far more bits than any format
    root = math.isqrt(int(scaled))
    exact = root * root == scaled
    return fit((Fraction(root) if exact else Fraction(2 * root + 1, 2)) / Fraction(2) ** 1200, of, mode)


def extreme(a: int, b: int, of: Format, *, largest: bool) -> tuple[int, int]:
    flags = NV if is_signalling(a, of) or is_signalling(b, of) else 0
    if is_nan(a, of) or is_nan(b, of):
        return (b if is_nan(a, of) else a) if not (is_nan(a, of) and is_nan(b, of)) else of.nan, flags
    a_is_less = order(a, of) < order(b, of)
    return (a if a_is_less != largest else b), flags


def order(bits: int, of: Format) -> int:
    """A key that sorts numbers, -0 before +0."""
    return -magnitude(bits, of) - 1 if sign_of(bits, of) else magnitude(bits, of)


def compare(a: int, b: int, of: Format, which: str) -> tuple[int, int]:
    if is_nan(a, of) or is_nan(b, of):
        loud = which != "feq" or is_signalling(a, of) or is_signalling(b, of)
        return 0, NV if loud else 0
    x, y = ((order(bits, of) if magnitude(bits, of) else 0) for bits in (a, b))
    return int({"feq": x == y, "flt": x < y, "fle": x <= y}[which]), 0


def classify(a: int, of: Format) -> int:
    if is_nan(a, of):
        return 1 << 8 if is_signalling(a, of) else 1 << 9
    size = magnitude(a, of)
    place = 3 if size == of.infinity else 0 if size == 0 else 1 if size < 1 << of.fraction else 2
    return 1 << (3 - place if sign_of(a, of) else 4 + place)


def to_integer(a: int, of: Format, mode: int, *, bits: int, signed: bool) -> tuple[int, int]:
    """The integer, not yet cut to a register."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if is_nan(a, of):
        return high, NV
    if is_infinite(a, of):
        return (low if sign_of(a, of) else high), NV
    rounded = whole(value(a, of), mode)
    if not low <= rounded <= high:
        return max(low, min(rounded, high)), NV
    return rounded, NX if rounded != value(a, of) else 0


def from_integer(number: int, to: Format, mode: int) -> tuple[int, int]:
    return fit(Fraction(number), to, mode) if number else (0, 0)


def convert(a: int, of: Format, to: Format, mode: int) -> tuple[int, int]:
    if is_nan(a, of):
        return to.nan, NV if is_signalling(a, of) else 0
    sign = sign_of(a, of) << to.size - 1
    if is_infinite(a, of):
        return sign | to.infinity, 0
    return fit(value(a, of), to, mode) if magnitude(a, of) else (sign, 0)
