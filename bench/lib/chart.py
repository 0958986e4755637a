"""The summary as an SVG: one panel for each workload, one bar for each system, as shares of raw."""

from xml.sax.saxutils import escape

from lib.systems_table import TITLES
from lib.workloads import WORKLOADS

COLUMNS = 3
PANEL_WIDTH, BAR_HEIGHT, HEAD, GAP = 416, 16, 40, 16
LABEL_WIDTH, FIGURE_WIDTH = 166, 78
OURS, THEIRS, LIMITS = "#1f6feb", "#c77d3a", "#9aa0a6"


def colour(system):
    if system in ("raw", "null"):
        return LIMITS
    return THEIRS if system in ("qsd", "quorum", "mirror") else OURS


def panel(results, workload, systems, left, top):
    about = WORKLOADS[workload]
    shown = [(s, results.median(workload, s)) for s in systems]
    shown = [(s, m) for s, m in shown if m is not None]
    key, unit = ("mb_s", "MB/s") if about.in_megabytes else ("iops", "op/s")
    largest = max(m[key] for _, m in shown)
    space = PANEL_WIDTH - LABEL_WIDTH - FIGURE_WIDTH
    parts = [f'<text x="{left}" y="{top + 16}" class="t">{escape(about.title)}</text>']
    y = top + HEAD - 12
    bottom = y + BAR_HEIGHT * len(shown)
    raw = next((m for s, m in shown if s == "raw"), None)
    if raw is not None:
        x = left + LABEL_WIDTH + space * raw[key] / largest
        parts.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{bottom}" class="r"/>')
    for system, middle in shown:
        length = max(1.0, space * middle[key] / largest)
        parts.append(f'<text x="{left + LABEL_WIDTH - 6}" y="{y + 11}" class="l">'
                     f'{escape(TITLES[system])}</text>')
        parts.append(f'<rect x="{left + LABEL_WIDTH}" y="{y + 1}" width="{length:.1f}" '
                     f'height="{BAR_HEIGHT - 3}" fill="{colour(system)}"/>')
        parts.append(f'<text x="{left + LABEL_WIDTH + length + 4:.1f}" y="{y + 11}" class="v">'
                     f'{middle[key]:,.0f} {unit}</text>')
        y += BAR_HEIGHT
    return parts


def svg(results, systems):
    workloads = list(results.cells)
    height = HEAD + BAR_HEIGHT * len(systems) + GAP
    rows = -(-len(workloads) // COLUMNS)
    columns = min(COLUMNS, len(workloads))
    width, total = columns * (PANEL_WIDTH + GAP) + GAP, rows * height + GAP
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" '
             f'viewBox="0 0 {width} {total}" font-family="sans-serif" font-size="11">',
             '<style>.t{font-weight:bold;font-size:12px}.l{text-anchor:end}.v{fill:#333;paint-order:stroke;'
             'stroke:white;stroke-width:3px}'
             '.r{stroke:#444;stroke-dasharray:3 2}</style>',
             f'<rect width="{width}" height="{total}" fill="white"/>']
    for index, workload in enumerate(workloads):
        row, column = divmod(index, COLUMNS)
        parts += panel(results, workload, systems, GAP + column * (PANEL_WIDTH + GAP),
                       GAP + row * height)
    return "\n".join([*parts, "</svg>"]) + "\n"
