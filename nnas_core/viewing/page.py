"""A view as one HTML page that works offline: style, scripts, drawing and data are all in it.

What users wrote is text in it, always: escaped in the markup, JSON that cannot end its element in the data, and put in
by the script as text. A Content-Security-Policy lets nothing run but the scripts of this package, by their checksums,
and lets nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

from nnas_core.schema import tagged
from nnas_core.viewing.drawing import asset, drawing_of, plain
from nnas_core.viewing.view import View

__all__ = ["data_of", "page_of"]

_STYLES = ("uPlot.min.css", "colours.css", "graph.css", "page.css")
_SCRIPTS = ("uPlot.iife.min.js", "page.js", "page-trials.js")


def data_of(view: View) -> str:
    """The view as the JSON that the script reads; it cannot end the element that it stands in."""
    return _embedded(tagged("view-report", view.to_json()))


def _embedded(document: object) -> str:
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_of(view: View, *, served: bool = False) -> str:
    """The page of a view.

    Args:
        view: what is shown.
        served: the page asks where it comes from for news, once every two seconds.

    Raises:
        UsageError: the package that computes layouts is not installed.
    """
    styles, scripts = [asset(name) for name in _STYLES], [asset(name) for name in _SCRIPTS]
    policy = _policy(styles, scripts, served)
    notes = list(view.notes)
    graph = insides = ""
    if view.space is not None and len(view.space):
        drawing = drawing_of(view)
        graph = "".join([drawing.opening, drawing.wires, *drawing.boxes, "</svg>"])
        insides = _embedded(drawing.insides)
        if drawing.layout.left_out:
            notes.append(f"{drawing.layout.left_out:,} connections between choices are not drawn")
    return "\n".join(_lines(view, policy, styles, scripts, graph, insides, notes, served))


def _policy(styles: list[str], scripts: list[str], served: bool) -> str:
    sources = [
        "default-src 'none'",
        f"script-src {' '.join(map(_checksum, scripts))}",
        f"style-src {' '.join(map(_checksum, styles))}",
        f"connect-src {chr(39)}self{chr(39)}" if served else "connect-src 'none'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(sources)


def _checksum(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _lines(
    view: View,
    policy: str,
    styles: list[str],
    scripts: list[str],
    graph: str,
    insides: str,
    notes: list[str],
    served: bool,
) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield '<link rel="icon" href="data:,">'
    yield f"<title>{plain(view.name)} - nnas</title>"
    yield from (f"<style>{style}</style>" for style in styles)
    yield f'</head><body data-served="{"yes" if served else "no"}">'
    yield f'<a class="skip" href="#main">Skip to the content</a><header><p class="kind">{plain(view.kind)}</p>'
    yield f"<h1>{plain(view.name)}</h1>"
    facts = "".join(f"<div><dt>{plain(name)}</dt><dd>{plain(value)}</dd></div>" for name, value in view.facts)
    yield f'<dl id="facts">{facts}</dl>'
    yield f'<ul id="notes">{"".join(f"<li>{plain(note)}</li>" for note in notes)}</ul>'
    yield '<p id="news" role="status"></p></header><main id="main">'
    yield "<noscript><p>Without JavaScript this page has the choices alone; an SVG drawing needs none.</p></noscript>"
    if graph:
        head, foot = asset("network.html").split("@drawing@")
        yield f"{head}{graph}{foot}"
    yield asset("sections.html")
    yield f'</main><script type="application/json" id="view">{data_of(view)}</script>'
    if graph:
        yield f'<script type="application/json" id="insides">{insides}</script>'
    yield from (f"<script>{script}</script>" for script in scripts)
    yield "</body></html>\n"
