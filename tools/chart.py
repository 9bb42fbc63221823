"""Bars as SVG: for each a median, and a line from the least to the most that was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABEL, VALUE, ROW, TOP = 860, 330, 90, 24, 10  # pixels
BASELINE, OURS, INK, RANGE, FLOOR = "#9aa5b1", "#2f6fdb", "#1f2933", "#52606d", "#c2410c"


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        low, value, high: the least, the median and the most.
        text: the median, written out.
        ours: whether it is this worker's, rather than a baseline's.
    """

    label: str
    low: float
    value: float
    high: float
    text: str
    ours: bool


def draw_chart(bars: Sequence[Bar], floor: float | None = None) -> str:
    """The bars from top to bottom, on a scale from 0.

    Args:
        floor: where a dashed line stands.
    """
    scale = (WIDTH - LABEL - VALUE) / (max(bar.high for bar in bars) or 1.0)
    height = TOP * 2 + ROW * len(bars)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
            f'font-size="12">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *(line for number, bar in enumerate(bars) for line in _draw_bar(bar, TOP + ROW * number, scale)),
            *([] if floor is None else [_draw_line(LABEL + floor * scale, height)]),
            "</svg>\n",
        ]
    )


def _draw_bar(bar: Bar, top: int, scale: float) -> Iterator[str]:
    middle, colour = top + ROW // 2, OURS if bar.ours else BASELINE
    low, value, high = (LABEL + figure * scale for figure in (bar.low, bar.value, bar.high))
    yield f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end" fill="{INK}">{escape(bar.label)}</text>'
    yield f'<rect x="{LABEL}" y="{top + 4}" width="{value - LABEL:.1f}" height="{ROW - 8}" fill="{colour}"/>'
    yield f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{RANGE}" stroke-width="2"/>'
    yield f'<text x="{max(value, high) + 6:.1f}" y="{middle + 4}" fill="{INK}">{escape(bar.text)}</text>'


def _draw_line(x: float, height: int) -> str:
    return f'<path d="M{x:.1f} 0V{height}" stroke="{FLOOR}" stroke-width="2" stroke-dasharray="5 3"/>'
