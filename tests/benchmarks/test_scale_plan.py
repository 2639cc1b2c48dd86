"""A plan follows from what a photo costs: whatever has the most to do says how long it takes."""

from __future__ import annotations

import pytest

from benchmarks.machine import Machine
from benchmarks.scale_plan import Costs, Format, Node, document, plan

COSTS = Costs(
    read_s=0.1,
    ready_s=0.1,
    masks_s=0.0,
    bytes_in=4_000_000,
    line=5_000,
    formats={
        "masks": Format(0.2, 0, 100_000, 5),
        "coco": Format(0, 0.001, 5_000, 0),
    },
)


def test_only_chosen_formats_cost() -> None:
    coco, both = COSTS.written(["coco"]), COSTS.written(["masks", "coco"])
    assert (coco.cores_s, both.cores_s) == pytest.approx((0.2, 0.4))
    assert coco.driver_s == both.driver_s == 0.001  # PNG files are the nodes' work
    assert (coco.bytes_out, both.bytes_out) == (15_000, 115_000)
    assert both.objects - coco.objects == 5


@pytest.mark.parametrize(
    ("node", "pace", "busy"),
    [
        (Node("slow GPU", 0.5, 40, 40, 2.0), "2", "GPU 100%, cores 2%, network 0%"),
        (Node("few cores", 0.1, 1, 40, 2.0), "2.5", "GPU 25%, cores 100%, network 0%"),
        (Node("thin line", 0.1, 40, 0.08, 2.0), "2.5", "GPU 25%, cores 2%, network 100%"),
        (Node("no GPU", 0.6, 1, 40, 2.0, on_cores=True), "1", "cores 100%, network 0%"),
    ],
)
def test_the_busiest_part_says_how_long_it_takes(node: Node, pace: str, busy: str) -> None:
    name, photos, parts, hours, nodes, price = plan(node, COSTS.written(["masks", "coco"]), 360_000)
    assert (name, photos, parts) == (node.name, pace, busy)
    took = 100 / float(photos)
    assert hours.replace(",", "") in (f"{took:.2g}", f"{took:.0f}")
    assert int(nodes) == -(-took // 24) and price == f"${round(2 * took)}"


def test_the_document_has_a_table_for_each_size_and_choice() -> None:
    text = document(Machine.this(), {"small": COSTS}, [Node("one", 0.5, 40, 40, 2.0)])
    assert "1,000,000 photos of small, `--formats coco`" in text and "photos of small, all default formats" in text
    assert text.count("| one ") == 4
