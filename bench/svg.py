"""Pictures of ratios, as SVG text: one dot for each rival on a logarithmic axis, and curves over the number of clients."""
import itertools
import math
from xml.sax.saxutils import escape

WIDTH, ROW, LEFT, RIGHT, TOP = 1000, 22, 520, 110, 92
COLOURS = {"ours": "#2a62c9", "bare": "#6f6f6a", "usual": "#b07400", "redis": "#c8322f", "pgq": "#0f8a5f"}
LABELS = {"ours": "distsys (in the curves)", "bare": "bare statement", "usual": "the usual SQL", "redis": "Redis", "pgq": "PgQ"}
INK, SOFT, GRID = "#1c1c1a", "#5c5c57", "#e3e3de"
TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
COLUMNS, CELL_H = 3, 210        # small multiples below the ratios


def text(x, y, words, size=12, colour=INK, anchor="start", extra=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" {extra}>{escape(words)}</text>'


def line(x1, y1, x2, y2, colour=GRID, width=1, extra=""):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}" {extra}/>'


def dot(x, y, kind, hint):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[kind]}"><title>{escape(hint)}</title></circle>'


def picture(title, comparisons):
    judged = [r for r in comparisons if not r.swept]
    swept = curves(comparisons)
    height_of_ratios = TOP + ROW * rows_of(judged) + 20
    height = height_of_ratios + (40 + CELL_H * math.ceil(len(swept) / COLUMNS) if swept else 0)
    body = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="system-ui, sans-serif" role="img">', f"<title>{escape(title)}: ratios to every rival</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fcfcfa"/>', text(16, 28, title, 18, extra='font-weight="600"'),
            text(16, 48, "calls a second, ours / theirs, in one run; right of 1 is faster. Bar: ends of the rounds. Tick: goal.", 12, SOFT)]
    body += legend(judged) + ratios(judged)
    if swept:
        body.append(text(16, height_of_ratios + 20, "Calls a second by number of clients (logarithmic)", 13, extra='font-weight="600"'))
        for place, (name, series) in enumerate(swept):
            body += multiple(16 + (place % COLUMNS) * (WIDTH - 32) / COLUMNS, height_of_ratios + 36 + place // COLUMNS * CELL_H, name, series)
    return "\n".join(body) + "\n</svg>\n"


def legend(comparisons):
    x, out = 16, []
    for kind in [k for k in LABELS if k == "ours" or any(r.kind == k for r in comparisons)]:
        out += [dot(x + 5, 66, kind, LABELS[kind]), text(x + 16, 70, LABELS[kind], 12, SOFT)]
        x += 40 + 7 * len(LABELS[kind])
    return out


def condition(r):
    return f"{r.clients} client{'s' * (r.clients > 1)}, " + {"fsync": "fsync", "async": "asynchronous commit", "memory": "nothing written"}[r.commit]


def groups(comparisons):
    return [(key, list(rows)) for key, rows in itertools.groupby(comparisons, key=lambda r: (r.case, condition(r)))]


def rows_of(comparisons):
    return sum(1.4 + len(rows) for _, rows in groups(comparisons))


def axis(comparisons):
    low = min([0.5] + [r.low for r in comparisons]) * 0.9
    high = max([2] + [r.high for r in comparisons]) * 1.1
    span = WIDTH - LEFT - RIGHT
    return low, high, lambda v: LEFT + span * math.log(v / low) / math.log(high / low)


def ratios(comparisons):
    low, high, at = axis(comparisons)
    bottom = TOP + ROW * rows_of(comparisons)
    out = []
    for tick in TICKS:
        if low <= tick <= high:
            out += [line(at(tick), TOP - 8, at(tick), bottom, SOFT if tick == 1 else GRID, 1.5 if tick == 1 else 1),
                    text(at(tick), TOP - 12, f"{tick:g}", 11, SOFT, "middle")]
    y = TOP
    for (case, how), rows in groups(comparisons):
        y += ROW * 1.4
        out.append(text(16, y - 8, f"{case}: {how}", 12, extra='font-weight="600"'))
        for r in rows:
            out += ratio_row(r, y, at)
            y += ROW
    return out


def ratio_row(r, y, at):
    middle = y + 5
    hint = f"{r.case} / {r.rival}: {r.ratio:.2f} ({r.low:.2f}-{r.high:.2f})"
    out = [text(32, y + 9, r.rival, 12, SOFT), line(at(r.low), middle, at(r.high), middle, COLOURS[r.kind], 3, 'stroke-opacity="0.45"'),
           dot(at(r.ratio), middle, r.kind, hint), text(WIDTH - RIGHT + 16, y + 9, f"{r.ratio:.2f}")]
    if r.goal:
        out += [line(at(r.goal.least), middle - 8, at(r.goal.least), middle + 8, INK, 2),
                text(WIDTH - 16, y + 9, "met" if r.met else "missed", 11, SOFT if r.met else COLOURS["redis"], "end")]
    return out


def curves(comparisons):
    """[(title, {(kind, name): [(clients, rate)]})] of every call that was measured with several numbers of clients."""
    found = {}
    several = {(r.case, r.commit) for r in comparisons if r.swept}
    for r in comparisons:
        if (r.case, r.commit) in several:
            series = found.setdefault(r.case + {"fsync": ", fsync", "async": ", async", "memory": ""}[r.commit], {})
            series.setdefault(("ours", "ours"), {})[r.clients] = r.ours.rate
            series.setdefault((r.kind, r.rival), {})[r.clients] = r.theirs.rate
    return [(title, {key: sorted(points.items()) for key, points in series.items() if len(points) > 1}) for title, series in found.items()]


def multiple(left, top, title, series):
    width, height = (WIDTH - 32) / COLUMNS - 24, CELL_H - 62
    rates = [rate for points in series.values() for _, rate in points]
    counts = sorted({clients for points in series.values() for clients, _ in points})
    low, high = min(rates) / 1.15, max(rates) * 1.15
    across = lambda c: left + 44 + (width - 52) * math.log(c / counts[0]) / math.log(counts[-1] / counts[0])
    up = lambda rate: top + 26 + height - height * math.log(rate / low) / math.log(high / low)
    out = [text(left, top + 14, title, 11.5, extra='font-weight="600"')]
    for clients in counts:
        out += [line(across(clients), top + 26, across(clients), top + 26 + height), text(across(clients), top + 42 + height, str(clients), 11, SOFT, "middle")]
    for rate in round_numbers(low, high):
        out += [line(left + 44, up(rate), left + width - 8, up(rate)), text(left + 40, up(rate) + 4, short(rate), 11, SOFT, "end")]
    for (kind, name), points in series.items():
        path = " ".join(f"{across(c):.1f},{up(rate):.1f}" for c, rate in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2"><title>{escape(name)}</title></polyline>')
        out += [dot(across(c), up(rate), kind, f"{name}, {c} clients: {rate:,.0f} a second") for c, rate in points]
    return out


def round_numbers(low, high):
    steps = [m * 10 ** e for e in range(0, 8) for m in (1, 2, 5)]
    return [s for s in steps if low <= s <= high]


def short(rate):
    return f"{rate / 1e6:g}M" if rate >= 1e6 else f"{rate / 1e3:g}k" if rate >= 1e3 else f"{rate:g}"
