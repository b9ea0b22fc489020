"""
The drawing of keys' lives.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kagimori.cli import timeline

T0 = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Life:
    published: datetime | None
    activates: datetime | None
    due: datetime | None = None
    retires: datetime | None = None
    expires: datetime | None = None


def drawn(life, now, *others):
    axis = timeline.Axis(T0, T0 + 10 * DAY, 20)
    return timeline.draw(life, axis, now, timeline.PLAIN)


def test_the_phases_of_a_replaced_key_are_drawn_in_order():
    """
    Published, signing, verifying, gone: each phase has its own mark, and now is marked.
    """
    life = Life(T0, T0 + 2 * DAY, None, T0 + 5 * DAY, T0 + 8 * DAY)

    assert "....######======|   " == drawn(life, T0 + 8 * DAY)


def test_a_current_key_runs_to_the_end_of_the_axis():
    """
    Without a successor a key signs on, so its line does not end.
    """
    assert "|###################" == drawn(Life(T0, T0), T0)


def test_a_phase_shorter_than_a_column_is_still_seen():
    """
    A key that waited for seconds only shows that it waited.
    """
    life = Life(T0 + DAY, T0 + DAY + timedelta(seconds=1))

    assert "  ." in drawn(life, T0 + 9 * DAY)


def test_all_lives_fit_on_one_axis():
    """
    The axis spans every date of every key, and now.
    """
    lives = [Life(T0, T0, T0 + 90 * DAY), Life(T0 - DAY, T0, None, T0 + DAY)]

    axis = timeline.axis_of(lives, T0 + 100 * DAY, 40)

    assert axis.start < T0 - DAY
    assert T0 + 100 * DAY < axis.end
    assert 0 < axis.column(T0 - DAY) <= axis.column(T0 + 100 * DAY) < 40


def test_plain_marks_serve_terminals_without_utf_8():
    """
    Where the encoding cannot show the fine marks, ASCII ones are drawn.
    """
    assert timeline.PLAIN is timeline.marks_for("ascii")
    assert timeline.PLAIN is timeline.marks_for(None)
    assert timeline.FINE is timeline.marks_for("utf-8")
