"""The two ways to report progress that come with the library."""

from __future__ import annotations

from after_model import progress


def test_silent_says_nothing(capsys):
    progress.silent("stage", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_bar_draws_every_stage_to_its_end(capsys):
    report = progress.bar()
    for stage in ("features", "training"):
        for done in range(4):
            report(stage, done, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "features: 100%" in err
    assert "training: 100%" in err
    assert err.count("\n") == 2  # one line each


def test_bar_survives_a_stage_that_stops_early(capsys):
    report = progress.bar()
    report("features", 1, 10)
    report("training", 3, 3)
    assert "training: 100%" in capsys.readouterr().err
