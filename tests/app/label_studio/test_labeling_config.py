"""Labelling interfaces as people write them: controls, labels, and which class goes by which label."""

from __future__ import annotations

import pytest

from app.errors import BadRequest
from app.label_studio.labeling_config import Interface, parse


def interface(*controls: str, image: str = '<Image name="image" value="$image"/>') -> Interface:
    return parse(f"<View>{image}<Header value='x'/><View style='x'>{''.join(controls)}</View></View>")


def test_controls_are_found_wherever_they_stand() -> None:
    found = interface(
        '<BrushLabels name="brush" toName="image"><Label value="can"/></BrushLabels>',
        '<rectanglelabels NAME="box" TONAME="image" model_skip="true"><Label value="can"/></rectanglelabels>',
        '<PolygonLabels name="outline" toName="image"><View><Label value="a"/></View><Label value="b"/>'
        "</PolygonLabels>",
        '<KeyPointLabels name="click" toName="image" smart="true"><Label value="can"/></KeyPointLabels>',
        '<BrushLabels name="other" toName="text"><Label value="can"/></BrushLabels>',
        '<Choices name="c" toName="image"><Choice value="x"/></Choices>',
    )
    assert [(one.name, one.shape, one.kind) for one in found.controls] == [
        ("brush", "brush", "brushlabels"),
        ("box", "rectangle", "rectanglelabels"),
        ("outline", "polygon", "polygonlabels"),
    ]
    assert [one.is_skipped for one in found.controls] == [False, True, False]
    assert [one.written for one in found.controls[2].labels] == ["a", "b"]
    assert found.images[0].field == "image" and found.texts == ("can", "a", "b")


def test_labels_may_stand_in_a_control_of_their_own() -> None:
    found = interface(
        '<Labels name="what" toName="image"><Label value="can"/></Labels><Brush name="brush" toName="image"/>'
    )
    (control,) = found.controls
    assert (control.kind, control.labels_name, control.label_of("can")) == ("brush", "what", "can")


@pytest.mark.parametrize(
    ("class_name", "written"),
    [
        ("can", "can"),  # the same, before one that differs in a letter's case
        ("CAN", "Can"),
        ("milk_bottle", "Milk"),  # by predicted_values
        ("tetra pak", "Milk"),
        ("MILK", "Milk"),
        ("water_bottle", "w1"),  # by the value, with a blank for the underscore; results have the alias
        ("W1", "w1"),
        ("carton", None),
    ],
)
def test_classes_go_by_their_labels(class_name: str, written: str | None) -> None:
    (control,) = interface(
        '<BrushLabels name="brush" toName="image"><Label value="Can"/><Label value="can"/>'
        '<Label value="Milk" predicted_values="milk_bottle, tetra pak"/><Label value="Water Bottle" alias="w1"/>'
        "</BrushLabels>"
    ).controls
    assert control.label_of(class_name) == written


def test_predicted_values_come_before_a_label_of_that_name() -> None:
    (control,) = interface(
        '<BrushLabels name="b" toName="image"><Label value="car"/><Label value="van" predicted_values="car"/>'
        "</BrushLabels>"
    ).controls
    assert control.label_of("car") == "van"


def test_what_controls_ask_for() -> None:
    found = interface(
        '<PolygonLabels name="p" toName="image" model_score_threshold="0.7" model_polygon_tolerance="2"'
        ' model_max_vertices="12"><Label value="a" predicted_values="b,c"/></PolygonLabels>'
    )
    assert (found.score_threshold, found.polygon_tolerance, found.max_vertices) == (0.7, 2.0, 12)
    assert found.texts == ("b", "c")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("<View>", "label_config, line 1: not XML"),
        ("", "label_config, line 1: not XML"),
        ("<View><Text name='t' value='$t'/></View>", 'expected an <Image name="..." value="$..."/>, found none'),
        ("<View><Image name='i' value='a.png'/></View>", "found none"),
        (
            "<View><Image name='i' value='$a'/>\n<Brush name='b' toName='i' model_score_threshold='high'/></View>",
            "label_config, line 2, model_score_threshold: expected a number from 0 to 1, got 'high'",
        ),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "expected plain XML, found the definition of an entity 'a'"),
    ],
)
def test_what_is_no_interface_is_told(config: str, told: str) -> None:
    with pytest.raises(BadRequest, match="label_config") as refused:
        parse(config)
    assert told in refused.value.message
