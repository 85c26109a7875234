"""Which labeling configs are understood, and what annotations say."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio.labeling import EXAMPLE, Control, LabelingError, controls, result, votes

AUDIO = '<Audio name="audio" value="$audio"/>'
TWO = '<Choice value="a"/><Choice value="b"/>'
EMOTION = Control("emotion", "audio", "audio", ("angry", "happy", "sad"), multiple=False)


def choices(name="emotion", to="audio", inner=TWO, **attributes):
    written = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<Choices name="{name}" toName="{to}" {written}>{inner}</Choices>'


def view(*parts):
    return f"<View>{''.join(parts)}</View>"


# --- configs -------------------------------------------------------------------------------------


def test_the_example_is_understood():
    (control,) = controls(EXAMPLE)
    assert control == Control(
        "emotion", "audio", "audio", ("angry", "happy", "neutral", "sad"), False
    )


@pytest.mark.parametrize(
    ("choice", "multiple"),
    [("single", False), ("single-radio", False), ("multiple", True), ("Multiple", True)],
)
def test_choice_says_whether_several_may_be_chosen(choice, multiple):
    assert controls(view(AUDIO, choices(choice=choice)))[0].multiple is multiple


def test_choice_is_single_where_nothing_is_said():
    assert controls(view(AUDIO, choices()))[0].multiple is False


def test_any_names_are_kept():
    config = view('<Audio name="Ton 1" value="$url"/>', choices("wie klingt's?", "Ton 1"))
    (control,) = controls(config)
    assert (control.name, control.to_name, control.audio_key) == ("wie klingt's?", "Ton 1", "url")


def test_an_alias_is_what_annotations_hold():
    inner = '<Choice value="Very angry" alias="angry"/><Choice value="sad"/>'
    assert controls(view(AUDIO, choices(inner=inner)))[0].labels == ("angry", "sad")


def test_nested_views_and_headers_are_looked_through():
    config = view("<View><Header value='?'/><View>", AUDIO, "</View></View>", view(choices()))
    assert controls(config)[0].name == "emotion"


def test_choices_inside_a_view_inside_the_choices_count():
    inner = '<View><Choice value="a"/></View><View><Choice value="b"/></View>'
    assert controls(view(AUDIO, choices(inner=inner)))[0].labels == ("a", "b")


def test_several_controls_come_in_the_order_of_the_config():
    config = view(choices("second"), AUDIO, choices("first", choice="multiple"))
    assert [c.name for c in controls(config)] == ["second", "first"]


def test_several_audio_tags_are_told_apart():
    config = view(
        AUDIO,
        '<Audio name="other" value="$reply"/>',
        choices("one", "other"),
        choices("two", "audio"),
    )
    assert [c.audio_key for c in controls(config)] == ["reply", "audio"]


def test_the_audio_among_several_targets_is_taken():
    config = view(AUDIO, '<Text name="text" value="$text"/>', choices(to="text, audio"))
    assert controls(config)[0].to_name == "audio"


def test_the_older_name_of_the_audio_tag_is_understood():
    assert controls(view('<AudioPlus name="audio" value="$a"/>', choices()))[0].audio_key == "a"


def test_other_controls_beside_do_not_disturb():
    config = view(
        AUDIO,
        '<Labels name="who" toName="audio"><Label value="x"/></Labels>',
        '<TextArea name="said" toName="audio"/>',
        '<Text name="text" value="$text"/>',
        choices("topic", "text"),
        choices(),
    )
    assert [c.name for c in controls(config)] == ["emotion"]


def test_a_comment_is_no_tag():
    assert controls(view("<!-- emotion -->", AUDIO, choices()))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "empty"),
        ("<View>", "well-formed"),
        ("no xml", "well-formed"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View/>', "DOCTYPE"),
        ("<View/>", "no Audio"),
        (
            view('<Text name="text" value="$text"/>', choices(to="text")),
            "'text', which is no Audio",
        ),
        (view(AUDIO, '<Labels name="l" toName="audio"><Label value="x"/></Labels>'), "no Choices"),
        (view(AUDIO, choices(to="nothing")), "no Audio"),
        (view(AUDIO, choices(inner="")), "0 choices"),
        (view(AUDIO, choices(inner='<Choice value="a"/><Choice value="a"/>')), "1 choices"),
        (view(AUDIO, choices(perRegion="true")), "perRegion"),
        (view(AUDIO, choices(inner="", value="$options")), "list them"),
        (view('<Audio name="audio" value="https://x/a.wav"/>', choices()), "$key"),
        (view('<Audio name="audio"/>', choices()), "$key"),
        (view(AUDIO, choices(), choices()), "two Choices"),
        (view(AUDIO, '<Choices toName="audio"/>'), "no name"),
        (
            view(AUDIO, choices(inner='<Choice value="a"><Choice value="b"/></Choice>')),
            "inside choices",
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_a_reason_and_an_example(config, reason):
    with pytest.raises(LabelingError) as raised:
        controls(config)
    assert reason in str(raised.value)
    assert str(raised.value).endswith(EXAMPLE)


@given(st.text(max_size=200))
def test_no_text_leads_to_another_error(text):
    with contextlib.suppress(LabelingError):
        controls(text)


# --- votes ---------------------------------------------------------------------------------------


def annotation(*chosen, by=1, at=0, name="emotion", **fields):
    return {
        "id": at,
        "completed_by": by,
        "updated_at": f"2026-01-01T00:{at // 60:02d}:{at % 60:02d}Z",
        "result": [{"from_name": name, "type": "choices", "value": {"choices": list(chosen)}}],
        **fields,
    }


def test_one_vote_an_annotator():
    found = votes(EMOTION, [annotation("sad", by=2), annotation("angry", by=1)])
    assert found == [["angry"], ["sad"]]


def test_skipped_and_empty_ones_say_nothing():
    skipped = annotation("sad", was_cancelled=True)
    assert votes(EMOTION, [skipped, annotation(by=2), {"result": None}, {}]) == []


def test_the_newest_of_an_annotator_counts():
    assert votes(EMOTION, [annotation("sad", at=9), annotation("happy", at=3)]) == [["sad"]]


def test_the_newest_counts_also_within_a_second():
    early = annotation("sad") | {"updated_at": "2026-01-01T00:00:00Z", "id": 2}
    late = annotation("happy") | {"updated_at": "2026-01-01T00:00:00.500000Z", "id": 1}
    assert votes(EMOTION, [late, early]) == [["happy"]]


def test_a_ground_truth_stands_alone():
    truth = annotation("happy", by=3, ground_truth=True)
    assert votes(EMOTION, [annotation("sad", at=9), truth, annotation("sad", by=2)]) == [["happy"]]


def test_labels_of_an_older_config_are_ignored():
    assert votes(EMOTION, [annotation("bored"), annotation("bored", "sad", by=2)]) == [["sad"]]


def test_other_controls_are_ignored():
    assert votes(EMOTION, [annotation("sad", name="other")]) == []


def test_several_choices_come_in_the_order_of_the_config():
    assert votes(EMOTION, [annotation("sad", "angry")]) == [["angry", "sad"]]


def test_who_annotated_may_be_a_number_or_an_object():
    first = annotation("sad", at=1, by={"id": 1, "email": "a@b.c"})
    assert votes(EMOTION, [first, annotation("happy", at=2, by=1)]) == [["happy"]]


def test_annotations_without_an_annotator_are_several():
    found = votes(EMOTION, [annotation("sad", by=None), annotation("sad", by=None, at=1)])
    assert found == [["sad"], ["sad"]]


ANNOTATIONS = st.lists(
    st.builds(
        annotation,
        st.sampled_from(("angry", "happy", "sad", "bored")),
        by=st.integers(1, 4),
        at=st.integers(0, 600),
        was_cancelled=st.booleans(),
        ground_truth=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda a: a["id"],
)


@given(ANNOTATIONS, st.randoms())
def test_the_order_of_annotations_is_irrelevant(annotations, rng: random.Random):
    shuffled = rng.sample(annotations, len(annotations))
    assert votes(EMOTION, shuffled) == votes(EMOTION, annotations)


@given(ANNOTATIONS)
def test_skipped_ones_change_nothing(annotations):
    kept = [a for a in annotations if not a["was_cancelled"]]
    assert votes(EMOTION, annotations) == votes(EMOTION, kept)


@given(ANNOTATIONS)
def test_there_is_at_most_one_vote_an_annotator_and_every_label_is_known(annotations):
    found = votes(EMOTION, annotations)
    assert len(found) <= len({a["completed_by"] for a in annotations})
    assert all(vote and set(vote) <= set(EMOTION.labels) for vote in found)


# --- results -------------------------------------------------------------------------------------


def test_a_result_is_the_top_choice_with_all_probabilities():
    entry = result(EMOTION, [0.2, 0.7, 0.1])
    assert entry["value"] == {"choices": ["happy"]}
    assert entry["score"] == 0.7
    assert entry["meta"]["probabilities"] == {"angry": 0.2, "happy": 0.7, "sad": 0.1}


def test_a_result_is_a_vote_of_the_same_label():
    assert votes(EMOTION, [{"result": [result(EMOTION, [0.2, 0.7, 0.1])]}]) == [["happy"]]


def test_several_may_be_chosen_where_the_config_allows_it():
    several = Control("emotion", "audio", "audio", ("angry", "happy", "sad"), multiple=True)
    assert result(several, [0.6, 0.1, 0.9])["value"] == {"choices": ["angry", "sad"]}
    assert result(several, [0.2, 0.1, 0.3])["value"] == {"choices": ["sad"]}


def test_a_wrong_number_of_probabilities_is_an_error():
    with pytest.raises(ValueError, match="2 probabilities, 3 labels"):
        result(EMOTION, [0.5, 0.5])
