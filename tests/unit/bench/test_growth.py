"""How growth is told: per PV, in units of the smallest size."""

from xml.etree import ElementTree

from bench.growth import per_pv, picture, table

GROWTH = {
    "import/total_s": {40_000: 2.0, 200_000: 10.0, 1_000_000: 100.0},
    "memory/restore_mb": {40_000: 100.0, 200_000: 200.0},
}


def test_cost_of_a_pv():
    assert per_pv(GROWTH["import/total_s"]) == {40_000: 1.0, 200_000: 1.0, 1_000_000: 2.0}
    assert per_pv(GROWTH["memory/restore_mb"]) == {40_000: 1.0, 200_000: 0.4}


def test_what_grows_faster_than_the_pvs_stands_out():
    text = table(GROWTH, ["connect at 1,000,000 PVs"])
    assert "| import/total_s | 2 | 10 | 100 | 1.00 | **2.00** |" in text
    assert "| memory/restore_mb | 100 | 200 |  | 0.40 |  |" in text
    assert "Could not run: connect at 1,000,000 PVs." in text


def test_the_picture_has_a_line_a_figure():
    root = ElementTree.fromstring(picture(GROWTH))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert sorted(len(line.attrib["points"].split()) for line in lines) == [2, 3]
