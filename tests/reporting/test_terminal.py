import pytest

from radapter.reporting.terminal import BITS, MARGIN, curve


def dots(lines, height):
    """(column, row from the top) of every dot of a braille curve."""
    found = set()
    for row, line in enumerate(lines[:height]):
        for column, character in enumerate(line[MARGIN + 2 :]):
            code = ord(character) - 0x2800 if character != " " else 0
            found |= {
                (2 * column + j, 4 * row + i)
                for i in range(4)
                for j in range(2)
                if code & BITS[i][j]
            }
    return found


def test_a_straight_line():
    lines = curve([(0, 0.0), (10, 5.0)], width=MARGIN + 2 + 4, height=2)
    assert [line[: MARGIN + 2] for line in lines] == [
        "       5 ┤", "       0 ┤", "         └", "          ",
    ]  # fmt: skip
    assert lines[2].endswith("└────")
    assert lines[3] == "          0 10"
    assert dots(lines, 2) == {(i, 7 - i) for i in range(8)}


def test_every_value_is_where_it_belongs():
    """Dots of a column span the values between its neighbours."""
    values = [0.5, 2.0, 1.0, 3.0, 0.0, 1.5, 1.5]
    lines = curve(list(enumerate(values)), width=MARGIN + 2 + 35, height=6)
    found = dots(lines, 6)
    for x, y in enumerate(values):
        column, row = round(x / 6 * 69), round((3.0 - y) / 3.0 * 23)
        assert (column, row) in found
    assert {column for column, _ in found} == set(range(70))  # no gaps


def test_plain_characters():
    lines = curve([(1, 1.0), (2, 2.0), (3, 1.0)], width=MARGIN + 2 + 5, height=3, ascii_only=True)
    assert "\n".join(lines).isascii()
    body = [line[MARGIN + 2 :] for line in lines[:3]]
    assert [row.ljust(5)[2] for row in body] == ["*", " ", " "]
    assert body[2] == "*   *"


@pytest.mark.parametrize(
    "points", [[], [(1, float("nan"))], [(1, float("inf")), (2, float("nan"))]]
)
def test_nothing_to_draw(points):
    assert curve(points, width=40, height=4) == []


def test_one_point_and_a_flat_curve():
    for points in ([(3, 0.5)], [(1, 0.5), (2, float("nan")), (9, 0.5)]):
        lines = curve(points, width=40, height=5)
        assert [line[: MARGIN + 2].strip() for line in lines[:5]] == ["│", "│", "0.5 ┤", "│", "│"]
    assert lines[-1].split() == ["1", "9"]


def test_curves_under_each_other_have_one_axis():
    points = [(5, 1.0), (10, 2.0)]
    lines = curve(points, width=MARGIN + 2 + 20, height=3, span=(0, 20))
    columns = [column for column, _ in dots(lines, 3)]
    assert (min(columns), max(columns)) == (round(39 / 4), round(39 / 2))
    assert lines[-1].split() == ["0", "20"]


@pytest.mark.parametrize("value", [123456.0, 1e-9, -0.00123])
@pytest.mark.parametrize("width", [4, 12, 80])
def test_lines_keep_to_the_width(value, width):
    lines = curve([(1, value), (1000, 2 * value)], width=width, height=4)
    assert len(lines) == 6
    assert max(map(len, lines)) <= max(width, 16)
