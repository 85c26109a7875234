"""What the page of an experiment says, part by part: the same for HTML and Markdown."""

from __future__ import annotations

from simulate.analysis import beside, plots
from simulate.analysis.material import Material, Section, Table
from simulate.analysis.published import SETTING, everything
from simulate.analysis.speakers import paired
from simulate.analysis.summary import ECE, Compared, Summary, percent
from simulate.analysis.tables import comparison_record, curve_table

COMPARED = ("arm", "baseline", "at", "difference", "interval", "over speakers", "p", "holm",
            "detectable", "folds", "verdict")  # fmt: skip
SHOWN = ("ua", "wa", *ECE, "minutes")
TESTS = (
    "The same folds and seeds, one arm minus the other; seeds are averaged within a fold. p is "
    "that of a t-test corrected for what folds share (Nadeau and Bengio 2003), p (Holm) the same "
    "corrected for all comparisons of the claim, at all shares, and the verdict follows from it. "
    "Detectable: the difference that would have been found with a probability of 80 %, before "
    "Holm's correction. Over speakers: the interval and p of drawing the test speakers anew "
    "(bootstrap), of all test recordings together; not corrected. Intervals are 95 %."
)


def sections(material: Material) -> list[Section]:
    """The parts in their order; those that would be empty are left out."""
    summary = material.summary
    found = [
        *_curves(material),
        *_accuracy(summary),
        *_comparisons(material),
        *_contrasts(summary),
        *_published(material),
    ]
    for draw in summary.experiment.draws:
        found += draw(material)
    missing = tuple((text,) for text in summary.design.missing)
    if missing:
        found.append(Section("What is not run", tables=(Table(("what, and why",), missing),)))
    return found


def chance(material: Material) -> dict[str, float]:
    """UA of guessing, and WA of always naming the largest class."""
    counts = material.corpus.counts()
    return {"ua": 1 / len(counts), "wa": max(counts.values()) / sum(counts.values())}


def _curves(material: Material) -> list[Section]:
    folder = material.folder / "pictures"
    pictures = plots.draw(material.summary, chance(material), folder)
    return [Section("Learning curves", pictures=tuple(pictures))] if pictures else []


def _accuracy(summary: Summary) -> list[Section]:
    found = [curve_table(summary, metric) for metric in SHOWN]
    labels = _labels(summary)
    if not labels.rows:
        return []
    note = (
        "Mean and standard deviation over the folds (seeds averaged within each), in brackets the "
        "number of runs. The best mean of a column is bold, which is not to say that it is "
        "reliably better. Means with their 95 % intervals are in summary.csv."
    )
    tables = (*(table for table in found if table.rows), labels)
    return [Section("Accuracy by labelled share", note, tables)]


def _labels(summary: Summary) -> Table:
    """Every label that was given: those asked for and, where there is one, the validation set's."""
    rows = []
    for arm in summary.design.arms:
        cells = []
        for share in summary.shares:
            point = summary.point(arm.name, share)
            if point is None:
                cells.append("")
                continue
            asked = f"{point.labelled - point.validation:.0f}"
            cells.append(f"{asked} + {point.validation:.0f}" if point.validation else asked)
        if any(cells):
            rows.append((arm.name, *cells))
    shares = tuple(map(percent, summary.shares))
    title = "labels given: asked for + validation set"
    return Table(("method", *shares), tuple(rows), title)


def _comparisons(material: Material) -> list[Section]:
    summary = material.summary
    over = paired(material)
    tables = []
    for claim in dict.fromkeys(one.claim for one in summary.comparisons):
        records = [
            comparison_record(c.comparison, "ua", c.share, over.get((*_pair(c), c.share)))
            for c in summary.comparisons
            if c.claim == claim and c.metric == "ua"
        ]
        if records:
            rows = tuple(tuple(record[name] for name in COMPARED) for record in records)
            tables.append(Table(("UA of", "against", *COMPARED[2:]), rows, claim, 2))
    if not tables:
        return []
    picture = plots.differences(summary, material.folder / "pictures" / "differences.png")
    return [Section("Paired comparisons", TESTS, tuple(tables), picture)]


def _pair(compared: Compared) -> tuple[str, str]:
    return compared.comparison.arm, compared.comparison.baseline


def _contrasts(summary: Summary) -> list[Section]:
    records = [comparison_record(c.comparison, c.metric, 0.0) for c in summary.contrasts]
    if not records:
        return []
    columns = ("metric", "arm", "baseline", "difference", "interval", "folds", "holm", "detectable")
    margins = {c.contrast.margin for c in summary.contrasts}
    words = ", ".join(f"{margin:g}" for margin in margins if margin is not None)
    note = f"The claim: it is no worse by more than {words} (non-inferiority, one-sided)."
    rows = tuple(tuple(record[name] for name in columns) for record in records)
    table = Table(columns, rows, words=3)
    return [Section("Is it as good with fewer labels?", note if words else "", (table,))]


def _published(material: Material) -> list[Section]:
    summary, corpus = material.summary, material.corpus
    found = []
    for number in summary.experiment.published:
        data = beside.data_name(corpus.name, corpus.policy)
        rows = beside.joined(summary, number, data)
        used = {row.published.id for row in rows}
        remarks = [row.remark for row in everything() if row.id in used and row.remark]
        of = rows[0].published
        note = (
            f"The paper: {SETTING}; here its numbers for {of.data} ({of.protocol}). Measured: "
            f"{data}, mean over folds with its 95 % interval. With other data or another backbone "
            "what can agree is the shape, not the level. "
            + "Remarks: " * bool(remarks)
            + "; ".join(dict.fromkeys(remarks))
        )
        title = f"Next to the paper's Table {number}"
        found.append(Section(title, note, (beside.as_table(rows),)))
    return found
