"""How numbers and names are written in the report, in figures and on the page alike."""

from __future__ import annotations

import math
import shlex

from neonet3d.metrics.interval import Interval

UNKNOWN = "–"


def number(value: float, digits: int = 2) -> str:
    """Fixed decimals with a true minus sign; a dash where the value is not defined."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.{digits}f}".replace("-", "−")


def significant(value: float, digits: int = 3) -> str:
    """Significant digits without an exponent, for distances whose scale is not known before."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return number(value, min(decimals, 6))


def range_text(low: float, high: float, digits: int = 2) -> str:
    """``[0.71, 0.91]``, or a word where one case gave the estimate and there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "[no interval]"
    return f"[{number(low, digits)}, {number(high, digits)}]"


def interval_text(interval: Interval, digits: int = 2) -> str:
    """``0.83 [0.71, 0.91]``."""
    return f"{number(interval.value, digits)} {range_text(interval.low, interval.high, digits)}"


def p_value(value: float) -> str:
    if not math.isfinite(value):
        return "not defined"
    return "< 0.001" if value < 0.001 else number(value, 3)


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s`` or ``4.1 s``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def spoken(name: str) -> str:
    """``portal_vein`` as people write it."""
    return name.replace("_", " ")


def mean_and_deviation(values: tuple[float, ...]) -> str:
    """``0.80 ± 0.05`` over the values that are defined (sample deviation, n - 1)."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return UNKNOWN
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return number(mean)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (len(known) - 1))
    return f"{number(mean)} ±\N{NO-BREAK SPACE}{number(deviation)}"


def without_folders(command: str) -> str:
    """A command whose paths have lost their folders, which say where and sometimes whose."""
    return shlex.join(_without_folder(word) for word in shlex.split(command))


def _without_folder(word: str) -> str:
    """Of ``--option=/a/path`` the option stays, of ``a=/a/path`` the name."""
    name, equals, value = word.rpartition("=")
    return name + equals + (value.rstrip("/").rpartition("/")[2] or value)
