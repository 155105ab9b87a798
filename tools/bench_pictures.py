"""Curves as SVG, with nothing but the standard library: axes, a line and its points for each series, a legend."""

import html
import math

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
# Told apart in print and by those who see fewer colours.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]


def curves(title, across, up, series, log_x=False, log_y=False):
    """`series` has a list of (x, y) for each name. Both axes start at 0 where they are not logarithmic."""
    points = [point for line in series.values() for point in line]
    x_axis = Axis([x for x, _ in points], log_x, LEFT, WIDTH - RIGHT)
    y_axis = Axis([y for _, y in points], log_y, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(LEFT, 22, title, "start", weight="bold"),
    ]
    for tick in x_axis.ticks():
        at = x_axis.place(tick)
        parts.append(line(at, TOP, at, HEIGHT - BOTTOM))
        parts.append(text(at, HEIGHT - BOTTOM + 18, number(tick), "middle"))
    for tick in y_axis.ticks():
        at = y_axis.place(tick)
        parts.append(line(LEFT, at, WIDTH - RIGHT, at))
        parts.append(text(LEFT - 8, at + 4, number(tick), "end"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, across, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{html.escape(up)}</text>'
    )
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in values]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        height = TOP + 10 + index * 20
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{height - 9}" width="12" height="12" fill="{colour}"/>')
        parts.append(text(WIDTH - RIGHT + 32, height + 2, name, "start"))
    return "\n".join([*parts, "</svg>", ""])


class Axis:
    """Values → places, by their size or its logarithm."""

    def __init__(self, values, log, start, end):
        self.log, self.start, self.end = log, start, end
        if log:
            self.low = 10 ** math.floor(math.log10(min(values)))
            self.high = 10 ** math.ceil(math.log10(max(values)) - 1e-9)
            if self.high == self.low:
                self.high *= 10
        else:
            self.low, self.step = 0, nice(max(values) / 5)
            self.high = self.step * math.ceil(max(values) / self.step)

    def share(self, value):
        if self.log:
            return math.log10(value / self.low) / math.log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def place(self, value):
        return self.start + self.share(value) * (self.end - self.start)

    def ticks(self):
        if self.log:
            return [self.low * 10**power for power in range(round(math.log10(self.high / self.low)) + 1)]
        return [self.step * index for index in range(round(self.high / self.step) + 1)]


def nice(step):
    """The next of 1, 2, 5, 10, 20, …"""
    magnitude = 10 ** math.floor(math.log10(step or 1))
    return next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= step)


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:g}"


def line(x1, y1, x2, y2):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def text(x, y, words, anchor, weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{html.escape(words)}</text>'
