"""Tolerance and the differences of numbers, element by element, exact for 64-bit integers.

Equal when `|a - b| <= absolute + relative * |stored|`, where the stored one is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.values import U1, U8, Kind, as_float64

F8 = NDArray[np.float64]
Mask = NDArray[np.bool_]

_TWO_64 = 2.0**64


@dataclass(frozen=True, slots=True)
class NumberDifference:
    """How n pairs of numbers differ; all arrays of shape (n,).

    `equal`: the same number, or both NaN. `within`: equal, or different by no more than the
    tolerance. `delta`: other - reference, NaN where either is NaN. `relative`: |delta| /
    |reference|, NaN where the reference is 0 or not finite. `deviation`: |delta| in tolerances,
    0 where equal, infinite where the tolerance is 0 or a side is infinite, NaN where either is
    NaN (unless both are: then 0).
    """

    equal: Mask
    within: Mask
    delta: F8
    relative: F8
    deviation: F8


def tolerance_margin(stored: F8, absolute: F8, relative: F8) -> F8:
    """`absolute + relative * |stored|`, without the NaN of 0 times infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        bound = np.asarray(absolute + relative * np.abs(stored), np.float64)
        if np.isnan(bound).any():
            share = np.where((relative == 0) | (stored == 0), 0.0, relative * np.abs(stored))
            bound = np.asarray(absolute + share, np.float64)
    return bound


def number_difference(
    reference_kind: U1, reference: U8, other_kind: U1, other: U8, absolute: F8, relative: F8
) -> NumberDifference:
    """Compare numeric scalars by kinds and bits, as in `Columns`; shapes (n,).

    Two integers are compared as integers, whatever their widths; any other pair as float64, so
    that an integer beyond 2**53 is rounded before it is compared with a float.
    """
    a, b = as_float64(reference_kind, reference), as_float64(other_kind, other)
    with np.errstate(invalid="ignore", over="ignore"):
        delta = b - a
        equal = (a == b) | (np.isnan(a) & np.isnan(b))
        bound = tolerance_margin(a, absolute, relative)
        # A finite difference is one of finite numbers.
        within = np.isfinite(delta) & (np.abs(delta) <= bound)
        infinite = np.isinf(delta)
        if infinite.any():
            _mend_overflow(a, b, absolute, relative, infinite, within)
    whole = np.flatnonzero(_is_integer(reference_kind) & _is_integer(other_kind))
    if len(whole):
        size, negative, overflow = _integer_difference(
            reference_kind[whole], reference[whole], other_kind[whole], other[whole]
        )
        equal[whole] = (size == 0) & ~overflow
        within[whole] = _at_most(size, overflow, bound[whole])
        exact = np.where(negative, -1.0, 1.0) * (size.astype(np.float64) + overflow * _TWO_64)
        delta[whole] = exact
    delta[equal & ~np.isnan(a)] = 0.0  # infinities minus themselves
    return NumberDifference(
        equal, within | equal, delta, _relative_delta(delta, a), _deviation_of(delta, bound, equal)
    )


def _mend_overflow(a: F8, b: F8, absolute: F8, relative: F8, infinite: Mask, within: Mask) -> None:
    """Decide pairs of finite numbers whose difference overflows by a quarter of everything."""
    rows = np.flatnonzero(infinite & np.isfinite(a) & np.isfinite(b))
    if len(rows):
        quarter = tolerance_margin(a[rows] / 4, absolute[rows] / 4, relative[rows])
        within[rows] = np.abs(a[rows] / 4 - b[rows] / 4) <= quarter


def _relative_delta(delta: F8, reference: F8) -> F8:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        relative = np.abs(delta / reference)
        relative[(reference == 0) | np.isinf(reference)] = np.nan
        return relative


def _deviation_of(delta: F8, bound: F8, equal: Mask) -> F8:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        size = np.abs(delta)
        deviation = size / bound
        deviation[np.isinf(size)] = np.inf
        deviation[equal] = 0.0
        return deviation


def _is_integer(kind: U1) -> Mask:
    mask: Mask = (kind >= Kind.BOOL) & (kind <= Kind.UINT64)
    return mask


def _is_negative(kind: U1, bits: U8) -> Mask:
    signed = (kind >= Kind.INT8) & (kind <= Kind.INT64)
    mask: Mask = signed & (bits >> np.uint64(63) != 0)
    return mask


def _integer_difference(a_kind: U1, a: U8, b_kind: U1, b: U8) -> tuple[U8, Mask, Mask]:
    """(|b - a| modulo 2**64, b < a, whether 2**64 is to be added)."""
    a_negative, b_negative = _is_negative(a_kind, a), _is_negative(b_kind, b)
    less = np.where(a_negative == b_negative, b < a, b_negative)
    low, high = np.where(less, b, a), np.where(less, a, b)
    size = high - low  # wraps to the right result
    overflow: Mask = (a_negative != b_negative) & (size < high)
    return size, less, overflow


def _at_most(size: U8, overflow: Mask, bound: F8) -> Mask:
    """Whether an exact difference is within a bound that is a float."""
    with np.errstate(invalid="ignore"):
        fits = bound < _TWO_64
        limit = np.where(fits & (bound >= 0), np.floor(bound), 0.0).astype(np.uint64)
    small = fits & (bound >= 0) & ~overflow & (size <= limit)
    large = (bound >= _TWO_64) & (~overflow | (size.astype(np.float64) + _TWO_64 <= bound))
    mask: Mask = small | large
    return mask
