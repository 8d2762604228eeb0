"""The HTML page: no script, no request, and every text from a log escaped."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

from pcr_plugin.plots.figures.drawing import Drawing, Missing
from pcr_plugin.plots.report.facts import Facts
from pcr_plugin.plots.tables.statistics import Estimate
from pcr_plugin.plots.tables.summary import Row

# In a page's head: what `pcr plot` may replace.
MARK = '<meta name="generator" content="pcr plot">'
# Should a browser find anything to load or to run here, it must not.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #111; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.6rem 0.25rem 0;
  border-bottom: 1px solid #ccc; }
td { font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { font-size: 0.85rem; color: #444; }
code { overflow-wrap: anywhere; }
@media print { section { break-inside: avoid; } }
"""


def page(
    rows: Sequence[Row],
    pictures: Sequence[tuple[Drawing, bytes]],
    missing: Sequence[Missing],
    facts: Facts,
) -> str:
    """The report.

    Args:
        rows: of the table.
        pictures: figures and their PNG files.
        missing: figures that could not be drawn.
        facts: what is to be known of the runs and this report.
    """
    sections = [
        _section("Configurations", _summary(rows, facts)),
        *(_picture(drawing, png) for drawing, png in pictures),
        _section("Not drawn", _missing(missing)),
        _section("Settings", _settings(facts)),
        _section("Runs", _runs(facts)),
        _section("Notes", _list(facts.notes)),
        _section("Made with", f"<p>{escape(facts.made)}</p>"),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(facts.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(facts.title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _picture(drawing: Drawing, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return _section(
        drawing.title,
        f'<figure><img alt="{escape(drawing.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(drawing.caption)} Files: {escape(drawing.name)}.png and .svg."
        "</figcaption></figure>",
    )


def _summary(rows: Sequence[Row], facts: Facts) -> str:
    headings = list(dict.fromkeys(heading for row in rows for heading in row.cells))
    head = ["configuration", "runs", "seeds", "steps", *headings]
    body = [
        [
            escape(row.name),
            str(row.runs),
            escape(", ".join(row.seeds) or "–"),
            "–".join(str(step) for step in dict.fromkeys(row.steps)),
            *(_cell(row.cells.get(heading), row.runs) for heading in headings),
        ]
        for row in rows
    ]
    return _table(head, body) + f'<p class="note">{escape(facts.explanation)}</p>'


def _cell(found: Estimate | None, runs: int) -> str:
    if found is None:
        return "–"
    error = "" if found.error is None else f"\u00a0±\u00a0{found.error:.2g}"
    count = "" if found.count == runs else f" ({found.count} runs)"
    return f"{found.mean:.4g}{error}{count}"


def _missing(missing: Sequence[Missing]) -> str:
    return _table(
        ["figure", "it would need"], [[escape(each.title), escape(each.needs)] for each in missing]
    )


def _settings(facts: Facts) -> str:
    rows = [[f"<code>{escape(key)}</code>", escape(value)] for key, value in facts.settings]
    return _table(["key", "value"], rows)


def _runs(facts: Facts) -> str:
    rows = [[escape(cell) for cell in run] for run in facts.runs]
    return _table(["run", "configuration", "seed", "log", "read as", "settings from"], rows)


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if lines else ""


def _table(head: Iterable[str], body: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    if not body:
        return ""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in body)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
