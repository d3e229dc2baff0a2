"""Line charts as plain SVG, on a white card so that they read on light and dark pages. No I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

INK, QUIET, GRID = "#1f2933", "#616e7c", "#e4e7eb"
COLOURS = ("#0b7285", "#e8590c", "#5f3dc4")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
PANEL_WIDTH, PANEL_HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 92, 52, 48  # around the plot of a panel; the lines' names are at the right


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """`x` is logarithmic, with a tick at each point; `y` begins at 0 unless `log_y`."""

    title: str
    x_words: str
    x_ticks: dict[float, str]
    lines: Sequence[Line]
    log_y: bool = False


def draw(panels: Sequence[Panel]) -> str:
    """An SVG document with the panels side by side."""
    width = PANEL_WIDTH * len(panels)
    size = f'viewBox="0 0 {width} {PANEL_HEIGHT}" width="{width}" height="{PANEL_HEIGHT}"'
    words = escape("; ".join(panel.title for panel in panels))
    card = f'width="{width - 1}" height="{PANEL_HEIGHT - 1}" rx="8" fill="#fff" stroke="{GRID}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONT}" role="img" aria-label="{words}">',
        f'<rect x="0.5" y="0.5" {card}/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * PANEL_WIDTH} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    xs = [math.log10(x) for x in panel.x_ticks]
    highest = max(y for line in panel.lines for _, y in line.points)
    lowest = min(y for line in panel.lines for _, y in line.points)
    ticks = _log_ticks(lowest, highest) if panel.log_y else _ticks(highest)
    scale = math.log10 if panel.log_y else float
    bottom, top = scale(ticks[0]), scale(ticks[-1])
    plot_width, plot_height = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def across(x: float) -> float:
        return round(LEFT + (math.log10(x) - xs[0]) / (xs[-1] - xs[0]) * plot_width, 1)

    def up(y: float) -> float:
        return round(TOP + (1 - (scale(y) - bottom) / (top - bottom)) * plot_height, 1)

    parts = [_text(LEFT - 44, 26, panel.title, size=14, weight=600)]
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {up(tick)}H{LEFT + plot_width}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, up(tick) + 4, short(tick), colour=QUIET, anchor="end"))
    for x, words in panel.x_ticks.items():
        parts.append(_text(across(x), TOP + plot_height + 18, words, colour=QUIET, anchor="middle"))
    parts.append(_text(LEFT + plot_width / 2, TOP + plot_height + 36, panel.x_words, colour=QUIET, anchor="middle"))
    names = _apart([up(line.points[-1][1]) + 4 for line in panel.lines])
    for line, colour, name_at in zip(panel.lines, COLOURS, names, strict=False):
        path = " ".join(f"{across(x)},{up(y)}" for x, y in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x)}" cy="{up(y)}" r="3.5" fill="{colour}"/>' for x, y in line.points]
        parts.append(_text(LEFT + plot_width + 10, name_at, line.name, colour=colour, weight=600))
    return parts


def _apart(places: Sequence[float], least: float = 15) -> list[float]:
    """The same, those too close moved down until none covers another."""
    moved = list(places)
    order = sorted(range(len(moved)), key=moved.__getitem__)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + least)
    return moved


def _text(
    x: float, y: float, words: str, *, size: int = 12, colour: str = INK, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def _ticks(highest: float) -> list[float]:
    """0 and four or so round steps up to `highest` or a little beyond."""
    rough = highest / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def _log_ticks(lowest: float, highest: float) -> list[float]:
    """The powers of ten around them."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def short(number: float) -> str:
    """1.2M, 250k, 64"""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{letter}"
    return f"{number:.3g}"
