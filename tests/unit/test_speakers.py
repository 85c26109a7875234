"""Who speaks, by data, folders and names: found where it is so, and nowhere else."""

from __future__ import annotations

import base64
import itertools
import re
import shlex
import string
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio import speakers
from backend.label_studio.speakers import NOBODY, Rule, SpeakerError, path_of, propose

EMOTIONS = ("anger", "happiness", "neutral", "sadness")


def local(*paths: str) -> list[speakers.Item]:
    """Tasks as `run` makes them."""
    return [({}, f"/data/local-files/?d=clips/{path.replace(' ', '%20')}") for path in paths]


def uploaded(*names: str) -> list[speakers.Item]:
    return [({}, f"/data/upload/3/{i:08x}-{name}") for i, name in enumerate(names)]


CORPORA = {
    "EmoDB": [
        f"{s:02d}{t}0{k}{e}a.wav" for s, t, k, e in itertools.product((3, 8, 9), "ab", (1, 2), "WN")
    ],
    "RAVDESS": [
        f"03-01-0{e}-01-0{t}-01-{s:02d}.wav"
        for s, e, t in itertools.product((1, 2, 24), (1, 2), (1, 2))
    ],
    "CREMA-D": [f"{s}_{t}_ANG_XX.wav" for s in (1001, 1002) for t in ("IEO", "TIE", "IOM")],
    "ShEMO": [f"{s}{e}0{k}.wav" for s in ("F01", "M02") for e in "ANS" for k in (1, 2)],
    "ESD": [f"{s}_00000{k}.wav" for s in ("0011", "0012") for k in range(1, 5)],
    "IEMOCAP": [f"Ses0{n}F_impro01_{s}00{k}.wav" for n in (1, 2) for s in "FM" for k in range(4)],
}
NUMBER = {"EmoDB": 3, "RAVDESS": 3, "CREMA-D": 2, "ShEMO": 2, "ESD": 2, "IEMOCAP": 4}


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("how", [local, uploaded])
def test_the_names_of_known_corpora_say_who_speaks(corpus: str, how: Any) -> None:
    found = propose(how(*CORPORA[corpus]))
    assert found is not None
    assert (corpus in found.by, len(found.counts), found.sure) == (True, NUMBER[corpus], True)


def test_emodb_and_ravdess_as_they_are_released() -> None:
    assert Rule(pattern=speakers.NAMES[1][1]).speaker({}, "/x/03a01Fa.wav") == "03"
    assert Rule(pattern=speakers.NAMES[0][1]).speaker({}, "/x/03-01-05-02-02-01-12.wav") == "12"


@pytest.mark.parametrize(
    ("paths", "who"),
    [
        ([f"Actor_{s:02d}/{i}.wav" for s in (1, 2) for i in range(4)], {"Actor_01", "Actor_02"}),
        ([f"{s}/{s}-{i}.wav" for s in ("f1", "m2") for i in range(4)], {"f1", "m2"}),
        ([f"p{s}/p{s}_{i}.wav" for s in (225, 226) for i in range(4)], {"p225", "p226"}),
        ([f"spk{s}_{i}.wav" for s in (1, 2) for i in range(4)], {"spk1", "spk2"}),
        ([f"a/x_speaker-{s}_{i}.wav" for s in "12" for i in range(4)], {"speaker-1", "speaker-2"}),
        ([f"1{s}72/128/{i}.flac" for s in "23" for i in range(4)], {"1272", "1372"}),
    ],
)
def test_folders_and_prefixes_say_who_speaks(paths: list[str], who: set[str]) -> None:
    found = propose(local(*paths))
    assert found is not None
    assert (set(found.counts), found.sure) == (who, True)


def test_a_field_of_the_data_comes_first() -> None:
    items = [({"speaker_id": i % 3, "audio": "x"}, f"Actor_0{i % 2}/{i}.wav") for i in range(30)]
    found = propose(items)
    assert found is not None
    assert (found.rule, dict(found.counts)) == (Rule(key="speaker_id"), {"0": 10, "1": 10, "2": 10})


def test_folders_that_may_be_anything_are_only_told() -> None:
    found = propose(local(*[f"{name}/{i}.wav" for name in ("anna", "ben") for i in range(9)]))
    assert found is not None
    assert not found.sure


@pytest.mark.parametrize(
    "paths",
    [
        [f"clip {i}.wav" for i in range(40)],
        [f"{e}/{i}.wav" for e in EMOTIONS for i in range(9)],
        [f"{part}/{i}.wav" for part in ("train", "test") for i in range(9)],
        [f"Session{n}/{i}.wav" for n in (1, 2) for i in range(9)],
        [f"{year}/{i}.wav" for year in (2023, 2024) for i in range(9)],
        [f"session_{i:03d}.wav" for i in range(40)],
        [f"spk{i}_a.wav" for i in range(40)],  # a recording each
        [f"spk1_{i}.wav" for i in range(40)],  # one alone
        [],
    ],
    ids=lambda paths: paths[0] if paths else "nothing",
)
def test_what_is_not_people_is_not_found(paths: list[str]) -> None:
    assert propose(local(*paths)) is None


def test_folders_called_like_the_projects_labels_are_no_people() -> None:
    items = local(*[f"{label}/{i}.wav" for label in ("Wut 1", "Ruhe") for i in range(9)])
    assert propose(items) is not None
    assert propose(items, ["wut 1", "ruhe"]) is None


names = st.text(string.ascii_lowercase + string.digits + "_-", min_size=1, max_size=12)


@given(st.lists(names, max_size=60), st.randoms())
def test_what_is_found_is_few_people_with_several_recordings_in_any_order(stems, random) -> None:
    items = local(*[f"{stem}.wav" for stem in stems])
    found = propose(items)
    shuffled = list(items)
    random.shuffle(shuffled)
    assert propose(shuffled) == found
    if found is None:
        return
    counted = Counter(found.rule.speaker(data, address) for data, address in items)
    unknown = counted.pop("", 0)
    assert counted == found.counts
    assert unknown <= 0.05 * len(items)
    assert 2 <= len(counted) <= len(items) / 2
    assert sum(number >= 3 for number in counted.values()) >= 0.8 * len(counted)


@given(st.lists(st.integers(3, 9), min_size=2, max_size=20))
def test_every_speaker_of_a_prefix_is_counted(numbers: list[int]) -> None:
    items = uploaded(*[f"spk{s:02d}_{i}.wav" for s, n in enumerate(numbers) for i in range(n)])
    found = propose(items)
    assert found is not None
    assert found.counts == {f"spk{s:02d}": n for s, n in enumerate(numbers)}


@given(st.lists(names, min_size=1, max_size=30, unique=True))
def test_unique_names_name_nobody(stems: list[str]) -> None:
    items = local(
        *[f"{stem}{'abcdefghijklmnopqrstuvwxyzABCD'[i]}.wav" for i, stem in enumerate(stems)]
    )
    found = propose(items)
    assert found is None or max(found.counts.values()) >= 3


# --- where a file lies ---------------------------------------------------------------------------


@given(names, st.text("0123456789abcdef", min_size=8, max_size=8), st.integers(1, 9999))
def test_what_label_studio_puts_before_a_name_is_left_out(stem, digits, project) -> None:
    assert path_of(f"/data/upload/{project}/{digits}-{stem}.wav") == f"{stem}.wav"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/local-files/?d=clips/anna/1%20%C3%A4.mp3", "clips/anna/1 ä.mp3"),
        ("s3://bucket/anna/1.wav", "anna/1.wav"),
        ("https://files.example.org/a/b.wav?token=x", "a/b.wav"),
        (
            "/tasks/7/resolve/?fileuri=" + base64.urlsafe_b64encode(b"s3://b/anna/1.wav").decode(),
            "anna/1.wav",
        ),
        ("/label/data/upload/1/0123abcd-03a01Fa.wav", "03a01Fa.wav"),
        (None, ""),
        ({"url": "x"}, ""),
        ("http://[bad/x.wav", ""),
        ("/tasks/7/resolve/?fileuri=%%%", ""),
    ],
)
def test_a_file_is_named_by_its_address(address: Any, path: str) -> None:
    assert path_of(address) == path


# --- rules that somebody gives -------------------------------------------------------------------


def test_a_pattern_takes_its_groups() -> None:
    assert speakers.rule(pattern=r"(\d+)_(\w)").speaker({}, "/x/12_b3.wav") == "12-b"


def test_a_key_takes_numbers_and_words_and_nothing_else() -> None:
    by = speakers.rule(key="who")
    given_values: list[Any] = [" anna ", 7, None, True, ["anna"], {}]
    assert [by.speaker({"who": value}, "") for value in given_values] == [
        "anna",
        "7",
        "",
        "",
        "",
        "",
    ]


@pytest.mark.parametrize("pattern", ["(", "abc", "(a)" * 400, r"\d+"])
def test_a_pattern_that_takes_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(SpeakerError, match="--speaker-pattern"):
        speakers.rule(pattern=pattern)


def test_key_and_pattern_together_are_refused() -> None:
    with pytest.raises(SpeakerError, match="not both"):
        speakers.rule(key="who", pattern="(a)")


def test_nobody_is_named_where_speakers_are_left_out() -> None:
    assert not speakers.rule(pattern=NOBODY)
    assert Rule(pattern=NOBODY).speaker({}, "/x/03a01Fa.wav") == ""
    assert not Rule()


def test_the_option_that_is_proposed_gives_the_same_speakers() -> None:
    found = propose(local(*CORPORA["EmoDB"]))
    assert found is not None
    _, pattern = shlex.split(found.rule.option())
    assert speakers.rule(pattern=pattern) == found.rule


def test_no_pattern_of_ours_needs_more_than_a_moment() -> None:
    """A name made to be slow takes no pattern a second."""
    hostile = "/".join(["speaker_" * 30, "0-" * 200, "Ses01F_" * 60, "a" * 200 + "1" * 200])
    began = time.process_time()
    for _, pattern in (*speakers.NAMES, *speakers.SAID, *speakers.FOLDERS, *speakers.MAYBE):
        re.search(pattern, hostile)
    assert time.process_time() - began < 1


def test_a_segment_is_known_by_the_recording_that_it_was_cut_from() -> None:
    rule = Rule(pattern=r"(?:^|/)(\d\d)a")
    data = {"audio": "/data/upload/1/0badcafe-5f3a-00001.flac", "source": "calls/03a01.wav"}
    part = data | {"start_s": 1.5, "end_s": 4}
    assert rule.speaker(part, speakers.address_in(part, ["audio"])) == "03"
    assert speakers.address_in(data, ["audio"]) == data["audio"]  # a field that means else
    assert speakers.address_in(data | {"start_s": "1", "end_s": "4"}, ["audio"]) == data["audio"]
