"""Draw the benchmark as SVG: mails a second against the round trip to the relay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, TOP, RIGHT, BOTTOM = 70, 50, 240, 50
# Colours that do not need red and green to be told apart; the lines of trio_worker are dark and thicker.
COLOURS = ("#999999", "#e69f00", "#56b4e9", "#cc79a7", "#d55e00", "#f0a030", "#7f7f00", "#0072b2", "#000000", "#009e73")


def plot(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the picture; ``found`` holds runs by contender by round trip (ms), as ``--json`` writes them."""
    round_trips = sorted(map(float, found))
    rates: dict[str, list[tuple[float, float]]] = {}
    for round_trip_ms in round_trips:
        for name, run in found[f"{round_trip_ms:g}"].items():
            rates.setdefault(name, []).append((round_trip_ms, run["rate"]))
    highest = max((rate for points in rates.values() for _, rate in points), default=1.0)
    lowest = min((rate for points in rates.values() for _, rate in points), default=1.0)
    bottom, top = math.floor(math.log10(max(lowest, 1))), math.ceil(math.log10(max(highest, 10)))

    def x_of(round_trip_ms: float) -> float:
        # Even steps, not to scale: the three round trips stand for three kinds of distance.
        steps = max(1, len(round_trips) - 1)
        return LEFT + (WIDTH - LEFT - RIGHT) * round_trips.index(round_trip_ms) / steps

    def y_of(rate: float) -> float:
        part = (math.log10(max(rate, 10**bottom)) - bottom) / max(1, top - bottom)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<style>text { font-size: 12px }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" style="font-size: 15px">Mails a second, by round trip to the relay</text>',
        f'<text x="{LEFT}" y="40" fill="#555555">ten connections, one process, logarithmic</text>',
    ]
    for power in range(bottom, top + 1):
        y = y_of(10**power)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    for round_trip_ms in round_trips:
        x, y = x_of(round_trip_ms), HEIGHT - BOTTOM + 20
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{round_trip_ms:g} ms</text>')
    taken: list[float] = []
    ordered = sorted(rates.items(), key=lambda item: -item[1][-1][1])
    for place, (name, points) in enumerate(ordered):
        colour = COLOURS[-1 - place % len(COLOURS)]
        is_ours = name.startswith("trio_worker")
        line = " ".join(f"{x_of(at):.1f},{y_of(rate):.1f}" for at, rate in points)
        width = 3 if is_ours else 1.5
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [
            f'<circle cx="{x_of(at):.1f}" cy="{y_of(rate):.1f}" r="{width + 1}" fill="{colour}"/>'
            for at, rate in points
        ]
        y = y_of(points[-1][1])
        while any(abs(y - other) < 14 for other in taken):
            y += 2
        taken.append(y)
        weight = ' font-weight="bold"' if is_ours else ""
        label = f"{name}  {points[-1][1]:,.0f}"
        x = x_of(points[-1][0]) + 12
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="{colour}"{weight}>{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
