from hypothesis import given
from hypothesis import strategies as st

from budgets.pacing import CLOSING, ROUNDS, SETTLING, Pace


def test_nothing_is_assumed_before_it_is_measured():
    pace = Pace(0.0, 100.0)
    assert pace.allowance(0.0, 10).units is None
    pace.seen(0.0, 0, 0, slots=1)
    pace.seen(SETTLING - 0.1, 500, 50, slots=1)
    assert pace.rate is None
    assert pace.allowance(5.0, 10).units is None


def test_the_rate_times_what_is_left_less_the_closing():
    pace = Pace(0.0, 100.0)
    pace.seen(0.0, 0, 0, slots=4)
    pace.seen(10.0, 1000, 8, slots=4)
    assert pace.rate == 100.0
    assert pace.allowance(10.0, 10).units == int(100 * (90 - CLOSING))


def test_all_slots_must_have_been_filled_anew():
    pace = Pace(0.0, 100.0)
    pace.seen(0.0, 0, 0, slots=4)
    pace.seen(10.0, 1000, ROUNDS * 4 - 1, slots=4)
    assert pace.rate is None
    pace.seen(20.0, 2000, ROUNDS * 4, slots=4)
    assert pace.rate == 100.0


def test_engines_that_start_do_not_slow_the_rate():
    pace = Pace(0.0, 100.0)
    for second in range(39):
        pace.seen(float(second), 0, 0, slots=0)
    pace.seen(39.0, 0, 0, slots=1)
    pace.seen(49.0, 1000, 10, slots=1)
    assert pace.rate == 100.0


def test_samples_that_land_together_do_not_quicken_the_rate():
    # 64 slots, 30 seconds and 300 tokens a sample, all in step: 640 tokens a second, never more than a round too much.
    pace = Pace(0.0, 3600.0)
    for quarter in range(4 * 1200):
        landed = 64 * (quarter // 120)
        pace.seen(quarter / 4, 300 * landed, landed, slots=64)
    assert pace.rate is not None
    assert 600 <= pace.rate <= 640 * (1 + 1 / ROUNDS)


def test_a_slow_beginning_is_forgotten():
    pace = Pace(0.0, 3600.0)
    for second in range(300):
        spent = max(0, second - 25) * 100
        pace.seen(float(second), spent, spent // 10, slots=1)
    assert pace.rate == 100.0


def test_a_tail_with_little_to_do_does_not_lower_what_can_be_done():
    pace = Pace(0.0, 1000.0)
    pace.seen(0.0, 0, 0, slots=1)
    pace.seen(10.0, 1000, 10, slots=1)
    for second in range(11, 200):
        pace.seen(float(second), 1000 + second, 10 + second, slots=1)
    assert pace.rate == 100.0


def test_what_reservations_give_back_may_be_sold_again():
    pace = Pace(0.0, 100.0)
    assert pace.allowance(0.0, 10, reserved=4000, worst=400).returning == 0
    pace.seen(0.0, 0, 0, slots=4)
    pace.seen(10.0, 1000, 10, slots=4)
    # A sample takes 100 of the 400 units reserved for it.
    assert pace.allowance(10.0, 10, reserved=4000, worst=400).returning == 3000
    assert pace.allowance(10.0, 10, reserved=4000, worst=50).returning == 0
    assert pace.allowance(10.0, 10, reserved=4000).returning == 0


def test_many_questions_take_longer_to_close_but_never_most_of_the_time():
    pace = Pace(0.0, 100.0)
    assert pace.closing(0) == CLOSING
    assert pace.closing(10_000) == 5.0
    assert pace.closing(10**9) == 20.0
    assert Pace(0.0, 1.0).closing(0) == 0.2


def test_at_the_deadline_it_is_over_and_stays_so():
    pace = Pace(0.0, 100.0)
    assert not pace.allowance(97.9, 0).expired
    assert pace.allowance(98.0, 0).expired
    assert pace.allowance(10.0, 0).expired
    assert Pace(5.0, 4.0).allowance(5.0, 0).expired


@given(st.lists(st.tuples(st.floats(0.01, 30), st.integers(0, 10_000)), min_size=1, max_size=60))
def test_the_allowance_falls_with_time_at_a_steady_rate(steps):
    pace, now, spent, landed = Pace(0.0, 10_000.0), 0.0, 0, 0
    for seconds, tokens in steps:
        now, spent, landed = now + seconds, spent + tokens, landed + (tokens > 0)
        pace.seen(now, spent, landed, slots=1)
        units = pace.allowance(now, 0).units
        assert units is None or units >= 0
    if pace.rate is not None:
        later = pace.allowance(now + 100.0, 0).units
        assert later is not None
        assert later <= pace.allowance(now, 0).units
