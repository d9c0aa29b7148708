"""Patterns in which a star stands for any text, and every other sign for itself. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

# What fnmatch reads as more than itself, beside the star: an origin by IPv6 address has brackets.
_LITERALLY: Final = str.maketrans({"[": "[[]", "?": "[?]"})


def fits(text: str, pattern: str) -> bool:
    return fnmatchcase(text, pattern.translate(_LITERALLY))
