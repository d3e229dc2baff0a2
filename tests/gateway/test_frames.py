"""Frames hold what was put into them, in order, however it is asked for."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.frames import Frame, Readings, frames_of, size_of
from gateway.readings import Reading

values = st.one_of(st.floats(allow_nan=False), st.integers(), st.booleans(), st.text(max_size=2))
readings = st.lists(
    st.builds(Reading, st.sampled_from("ab"), st.sampled_from("mn"), st.integers(0, 2), values), max_size=20
)


@given(readings)
def test_frames_give_back_what_they_were_made_of(given: list[Reading]) -> None:
    frames = frames_of(given)
    assert repr(list(Readings(frames))) == repr(given)
    assert size_of(frames) == len(Readings(frames)) == len(given)


@given(readings, st.slices(20))
def test_a_part_is_what_the_same_part_of_a_list_is(given: list[Reading], part: slice) -> None:
    part = slice(*part.indices(len(given))[:2])  # as the drain asks: in order
    assert Readings(frames_of(given))[part] == given[part]


def test_a_frame_of_many_rows_is_read_row_by_row() -> None:
    frame = Frame("a", ("m", "n"), [1, 2], [[1, 2], [True, False]])
    assert frame.size == 4
    assert list(frame.readings()) == [
        Reading("a", "m", 1, 1),
        Reading("a", "n", 1, True),
        Reading("a", "m", 2, 2),
        Reading("a", "n", 2, False),
    ]
    assert Readings([frame])[-1] == Reading("a", "n", 2, False)
