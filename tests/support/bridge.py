"""What the asyncio loop complains of, kept for a test."""

from __future__ import annotations

from attrs import define, field


@define
class Complaints:
    """What the asyncio loop complained of; a test that does not expect any fails on them."""

    said: list[str] = field(factory=list)
