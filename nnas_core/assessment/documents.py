"""The report of an assessment for people, as Markdown, and for servers of continuous integration, as JUnit's XML.

Names are those of users: what could be markup, or end a line, is escaped.
"""

from __future__ import annotations

from xml.etree import ElementTree

from nnas_core.assessment._markdown import escaped, plain
from nnas_core.assessment.report import Assessment

__all__ = ["OUTCOMES", "heading", "junit", "markdown", "numbers"]

OUTCOMES = {"passed": "passed", "warned": "WARNING", "failed": "FAILED", "skipped": "not told"}
"""Of criteria, in words."""


def heading(report: Assessment) -> str:
    """Returns what is assessed, in words; nothing in them is escaped."""
    one = report.subject
    where = {"search": "of the search", "retrain": "of the retraining", "study": "of the study"}[one.kind]
    return f"the architecture {where} {one.name}"


def numbers(report: Assessment) -> list[tuple[str, str]]:
    """Returns what was measured, by name; nothing is escaped."""
    ones, spread = report.random, report.random.summary
    metric = report.subject.metric or "value"
    deviation = "" if spread.deviation is None else f", standard deviation {spread.deviation:.4g}"
    rows = [
        (f"{metric} of the found one", f"{ones.found:.4g}"),
        ("random ones, best", f"{ones.best:.4g}"),
        ("random ones, median", f"{spread.median:.4g}"),
        ("random ones, quartiles", f"{spread.lower_quartile:.4g} to {spread.upper_quartile:.4g}"),
        ("random ones, mean", f"{spread.mean:.4g}{deviation}"),
    ]
    if report.alone is not None:
        seeds = zip(report.alone.seeds, report.alone.found, strict=True)
        rows.append(("trained alone, found", ", ".join(f"{value:.4g} (seed {seed})" for seed, value in seeds)))
        means = [sum(row) / len(row) for row in report.alone.values]
        rows.append(("trained alone, random", ", ".join(f"{value:.4g}" for value in means)))
    return rows


def markdown(report: Assessment) -> str:
    """Returns the report as a page of Markdown."""
    rows = [f"| {one.name} | {OUTCOMES[one.outcome]} | {escaped(one.text)} |" for one in report.criteria]
    measured = [f"| {escaped(name)} | {escaped(value)} |" for name, value in numbers(report)]
    parts = [
        f"# Assessment of {escaped(heading(report))}",
        "",
        "| criterion | outcome | what was measured |",
        "|---|---|---|",
        *rows,
        "",
        f"| {escaped(report.subject.metric or 'value')} | {report.subject.mode} |",
        "|---|---|",
        *measured,
        "",
        *(f"- {escaped(note)}" for note in report.notes),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def junit(report: Assessment) -> str:
    """Returns the report as JUnit's XML: a test case a criterion, of which only a gate fails."""
    cases = report.criteria
    counts = {
        "tests": len(cases),
        "failures": sum(one.outcome == "failed" for one in cases),
        "errors": 0,
        "skipped": sum(one.outcome == "skipped" for one in cases),
    }
    name = plain(f"nnas assess {report.subject.name}")
    suite = ElementTree.Element("testsuite", {"name": name, **{key: str(value) for key, value in counts.items()}})
    for one in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "nnas.assess", "name": one.name})
        text = plain(one.text)
        if one.outcome in ("failed", "skipped"):
            tag = "failure" if one.outcome == "failed" else "skipped"
            ElementTree.SubElement(case, tag, {"message": text})
        else:
            ElementTree.SubElement(case, "system-out" if one.outcome == "passed" else "system-err").text = text
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
