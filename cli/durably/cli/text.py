"""Times, tokens, money and JSON in few characters: how the command line and the page write them."""

from __future__ import annotations

import json
import unicodedata
from datetime import datetime
from typing import Any

from durably.core.model import Usage

__all__ = ["clock_time", "money", "one_line", "plain", "pretty_json", "seconds", "spell_tokens", "tokens"]


def seconds(value: float | None) -> str:
    """A span of time: ``3 ms``, ``1.24 s``, ``2 m 05 s``, ``3 h 12 m``, ``4 d 2 h``."""
    if value is None:
        return ""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def clock_time(at: float | None) -> str:
    """A moment on this machine's clock, to the second; empty for none."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def tokens(count: int) -> str:
    """A number of tokens: ``812``, ``1,284``, ``12.4k``, ``3.1M``."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1000:.1f}k" if count < 999_950 else f"{count / 1_000_000:.2f}M"


def spell_tokens(usage: Usage | None) -> str:
    """Tokens read and written: ``1,284 → 96``; empty for none."""
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return ""
    return f"{tokens(usage.input_tokens)} → {tokens(usage.output_tokens)}"


def money(cost: float | None) -> str:
    """US dollars: ``$0.0053``, ``$1.20``; empty if it is not known."""
    if cost is None:
        return ""
    return f"${cost:.2f}" if cost >= 1 or cost == 0 else f"${cost:.4f}"


def plain(text: str) -> str:
    """Text that no terminal takes for a command: control and direction characters are written out."""
    return "".join(
        each if each in "\n\t" or unicodedata.category(each) not in ("Cc", "Cf", "Cs") else f"\\u{ord(each):04x}"
        for each in text
    )


def one_line(text: str, width: int) -> str:
    """Text on one line of so many characters at most."""
    flat = " ".join(plain(text[: width * 4]).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def pretty_json(text: str) -> str:
    """JSON text over several lines; other text, such as a digest or what was cut off, as it is."""
    try:
        data: Any = json.loads(text)
    except ValueError:
        return text
    return data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, indent=2)
