"""A team or one thread: a slow team is left at once and tried again; one slow reading changes nothing."""

from gpubp.backend.pace import PASSES, Pace


def drive(pace, shared, alone, replays, times=1):
    """Replays that take so many seconds a pass; how many of them were shared."""
    count = 0
    for _ in range(replays):
        team, passes = pace.choose(times)
        assert 1 <= passes <= times
        pace.took(team, passes * (shared if team else alone), passes)
        count += team
    return count


def test_a_long_step_is_shared_from_the_start_and_left_when_slow():
    pace = Pace(2, 0.02)
    assert drive(pace, 0.01, 0.02, 20, 50) == 20
    drive(pace, 0.2, 0.02, 8, 50)
    assert not pace.use_team


def test_the_quicker_way_is_kept():
    assert drive(Pace(2, 2e-5), 1e-3, 2e-3, 1000) == 997  # but for one trial of the other
    pace = Pace(2, 2e-5)
    drive(pace, 2e-3, 1e-3, 20)
    assert not pace.use_team


def test_one_slow_reading_changes_nothing():
    pace = Pace(2, 2e-5)
    drive(pace, 1e-5, 2e-5, 50)
    for _ in range(20):
        drive(pace, 9e-3, 2e-5, 1)
        assert drive(pace, 1e-5, 2e-5, 2 * PASSES) == 2 * PASSES


def test_a_sleeping_team_is_not_taken_for_a_slow_one():
    pace = Pace(2, 2e-5)
    for each in (9e-5, 1e-5, 1e-5):  # the first of a trial wakes the members
        pace.took(True, PASSES * each, PASSES)
    drive(pace, 1e-5, 2e-5, 3 * PASSES)
    assert pace.use_team


def test_a_team_that_lost_a_core_is_soon_left_and_found_again():
    pace = Pace(2, 2e-5)
    drive(pace, 1e-5, 2e-5, 6 * PASSES)
    drive(pace, 1e-3, 2e-5, 3 * PASSES)  # then it is put to the trial
    drive(pace, 1e-3, 2e-5, 6 * PASSES)
    assert not pace.use_team
    assert drive(pace, 1e-3, 2e-5, 100_000) < 100  # 2 s of work: few trials
    drive(pace, 1e-5, 2e-5, 150_000)
    assert pace.use_team


def test_a_long_replay_is_judged_by_itself_and_trials_are_short():
    pace = Pace(2, 2e-5)
    assert pace.choose(5000) == (True, PASSES)
    drive(pace, 1e-5, 2e-5, 10, 5000)
    assert pace.choose(5000) == (True, 5000)
    drive(pace, 1e-4, 2e-5, 7, 5000)
    assert not pace.use_team


def test_a_neighbour_that_takes_a_core_for_three_passes_is_not_a_slow_team():
    pace = Pace(2, 1e-4)
    drive(pace, 6e-5, 1e-4, 6 * PASSES)
    for _ in range(20):
        drive(pace, 5e-4, 1e-4, 3)
        assert drive(pace, 6e-5, 1e-4, 3 * PASSES) == 3 * PASSES


def test_single_passes_are_gathered_to_readings():
    one, many = Pace(2, 2e-5), Pace(2, 2e-5)
    drive(one, 1e-5, 2e-5, 6 * PASSES)
    drive(many, 1e-5, 2e-5, 6, PASSES)
    assert (one.shared, one.alone) == (many.shared, many.alone)
    assert one.choose(50) == many.choose(50) == (True, 50)
