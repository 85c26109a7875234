"""`python simulate/run.py --list`: what there is, read from what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from after_model import acquisition, backbone, initialization
from simulate import data, experiments, protocols, run, systems
from simulate.command import listing


def test_everything_that_can_be_asked_for_is_listed_with_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run.main(["--list"]) == 0
    told = capsys.readouterr().out
    found = listing.sections()
    wanted = {
        "experiments": experiments.names(),
        "corpora": data.names(),
        "protocols": protocols.names(),
        "presets": ["default", "paper"],
        "strategies": acquisition.names(),
        "starts": initialization.names(),
        "backbones": [path.parent.name for path in backbone.WEIGHTS.glob("*/config.json")],
        "systems": systems.names(),
    }
    for what, names in wanted.items():
        lines = next(lines for title, lines in found.items() if title.split(" ")[0] == what)
        assert set(names) <= set(lines), what
        assert all(len(line) > 10 for line in lines.values()), what
        assert all(f"  {name}" in told for name in names)


def test_a_new_file_is_listed_by_its_first_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '"""Nothing at all, as\nsaid by someone et al. 2024. Not this.\n\nNor this."""\n'
    (tmp_path / "new_one.py").write_text(text)
    monkeypatch.setattr(systems, "__path__", [*systems.__path__, str(tmp_path)])
    line = listing.sections()["systems"]["new-one"]
    assert line == "Nothing at all, as said by someone et al. 2024."


@pytest.mark.parametrize("width", [60, 100])
def test_lines_are_wrapped_below_their_own_column(width: int) -> None:
    for line in listing.text(width).splitlines():
        assert len(line) <= width
