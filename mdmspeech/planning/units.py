"""Numbers as people read them."""


def size(count: float) -> str:
    """Bytes: "1.50 GiB", "12.0 MiB", "0"."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= factor:
            return f"{_three(count / factor)} {unit}"
    return f"{count:.0f} B" if count else "0"


def amount(number: float) -> str:
    """A large number with three digits, ready for a unit: "1.23 P", "45.6 k", "7 "."""
    for unit, factor in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= factor:
            return f"{_three(number / factor)} {unit}"
    return f"{number:.3g} "


def _three(number: float) -> str:
    """Three digits, but never 1e+03."""
    return f"{number:.0f}" if abs(number) >= 99.95 else f"{number:.3g}"


def duration(seconds: float) -> str:
    """ "12.3 ms", "1.5 s"."""
    if seconds >= 100:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
