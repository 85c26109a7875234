"""Table 1: recordings, actors and the ratio of the four emotions. Nothing is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from simulate.analysis.material import Material, Section, Table
from simulate.analysis.published import everything
from simulate.data import Corpus
from simulate.experiments import Design, Experiment, Options

FOUR = ("anger", "neutral", "sadness", "happiness")


def draw(material: Material) -> Sequence[Section]:
    """A row a corpus, and one for all of a merge."""
    corpus = material.corpus
    members = list(dict.fromkeys(item.corpus or corpus.name for item in corpus.items))
    rows = [_row(corpus, name, name) for name in members]
    if len(members) > 1:
        rows.append(_row(corpus, corpus.name, None))
    header = ("corpus", "recordings", "in the paper", "difference", "actors", "in the paper",
              f"ratio of {', '.join(FOUR)}", "in the paper")  # fmt: skip
    note = (
        "Counted in the files, of the classes that this command takes. Ratios are to the smallest "
        "of the four classes."
    )
    return [Section("Counts and ratios", note, (Table(header, tuple(rows)),))]


def _row(corpus: Corpus, name: str, member: str | None) -> tuple[str, ...]:
    """member: None for all of them."""
    rows = [i for i, item in enumerate(corpus.items) if member in (None, item.corpus or name)]
    speakers = {(corpus.items[i].corpus, corpus.items[i].speaker) for i in rows}
    counts = Counter(corpus.labels[i] for i in rows)
    paper = {row.metric: row.text for row in everything() if (row.table, row.data) == (1, name)}
    printed = paper.get("recordings", "")
    difference = f"{len(rows) - int(printed):+d}" if printed else ""
    ratios = " : ".join(paper[f"ratio {label}"] for label in FOUR) if printed else ""
    actors = paper.get("actors", "")
    return (name, str(len(rows)), printed, difference, str(len(speakers)), actors,
            ratio(counts), ratios)  # fmt: skip


def ratio(counts: Counter[str]) -> str:
    """`2.0 : 1.3 : 1.0 : 1.1`, in the order of FOUR."""
    least = min((counts[label] for label in FOUR if counts[label]), default=1)
    return " : ".join(f"{counts[label] / least:.1f}" for label in FOUR)


def design(_: Options) -> Design:
    return Design(())


EXPERIMENT = Experiment(
    "table1",
    "The corpora",
    "Table 1: the Merged corpus's parts, four emotions.",
    design,
    draws=(draw,),
)
