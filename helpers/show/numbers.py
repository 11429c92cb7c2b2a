"""How a number is written for a reader: bytes, seconds, counts, shares."""

import ast
import math
import re

NUMBER = re.compile(r"–|[<≈]?[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?: ?[A-Za-zµ%×][A-Za-z/%×]*)?")
LINE = 60  # characters of a value in a message
PREFIXES = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}


def as_typed(value) -> str:
    """A value as it was typed, on one line at most; of a number that is longer its size: "about 10**400"."""
    if isinstance(value, int) and abs(value) >= 10**LINE:
        return f"about {'-' * (value < 0)}10**{int(abs(value).bit_length() * math.log10(2))}"
    try:
        words = " ".join(repr(value).split())
    except Exception:  # somebody's own class has one that fails; a list holds a number of a million digits
        words = f"<{type(value).__name__}>"
    return cut(words)


def cut(words: str, letters: int = LINE) -> str:
    """The first letters of a text that is longer: "EEEE …"."""
    return words if len(words) <= letters else f"{words[:letters]} …"


def unquoted(text):
    """What a text would be without its quotes, a number, True, False or None; the text itself where it is none."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, AttributeError, RecursionError, MemoryError):
        return text
    return value if isinstance(value, int | float | None) else text


def is_number(text: str) -> bool:
    """Whether a cell is a number, with its unit or without: "1,024", "3.5e-05", "40.2%", "1.3×", "99 GB", "–"."""
    return bool(NUMBER.fullmatch(text))


def short_number(value: float) -> str:
    """Three digits of a number, or all of a whole one below a million: "0.0156", "57,344", "3.39e+38"."""
    return f"{value:,.0f}" if 1 <= value < 1e6 else f"{value:.3g}"


def decimal_bytes(size: float) -> str:
    """Bytes in words: "5.0 GB", "310 MB" (powers of 1000, as disks and GPUs are sold)."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            number = size / factor
            return f"{number:.1f} {unit}" if number < 100 else f"{math.ceil(number):,} {unit}"
    return f"{size / 1e3:.0f} kB"


def shown(value: float | None) -> str:
    """A figure as a reader wants it: thousands separated, four digits that count, "–" for what was not measured."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: "42 s", "3:07 min", "2:05 h"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d} h"


def duration_ms(seconds: float) -> str:
    """A step's time or a part of it: "3.2 ms", "175 ms", "12.3 s"."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"


def prefixed(value: float, unit: str) -> str:
    """Three digits with a prefix of the SI: "735 TFLOP/s", "74.4 µs", "7.52 fs"."""
    if value == 0:
        return f"0 {unit}"
    power = min(max(math.floor(math.log10(abs(value) * 1.0005) / 3), -5), 4)
    digits = value / 1000.0**power
    return f"{digits:,.0f} {PREFIXES[power]}{unit}" if digits >= 100 else f"{digits:.3g} {PREFIXES[power]}{unit}"


def short_count(count: float, tenths: bool = False) -> str:
    """Three digits of a count, "355M", "8.03B"; with `tenths` a fourth where three leave none: "354.9M"."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}" if tenths and count >= 100 * size else f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def billions(count: float) -> str:
    """ "8.0B", as models are called."""
    return f"{count / 1e9:.1f}B"


def percent(share: float) -> str:
    """A share in whole percent, a half rounded up, as published tables do."""
    return "–" if math.isnan(share) else f"{math.floor(100 * share + 0.5)}%"


def bytes_per_second(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:.1f} GB/s" if bytes_per_second >= 1e9 else f"{bytes_per_second / 1e6:.0f} MB/s"


def binary_bytes(size: int) -> str:
    return next(
        f"{size / unit:.0f} {name}" for unit, name in ((2**20, "MiB"), (2**10, "KiB"), (1, "B")) if size >= unit
    )
