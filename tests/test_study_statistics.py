"""What a study concludes, against values worked out by hand and simulated studies of known truth."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.study import Truth, contrasts, covered, wrong
from launcher.study.analysis import results, statistics
from launcher.study.analysis.comparison import compare_arms
from launcher.study.analysis.pairs import NO_SPREAD, ONE_SEED
from launcher.study.analysis.ranking import group_letters, rank_arms
from launcher.study.analysis.results import Rung
from launcher.study.analysis.statistics import ALPHA, Array, Contrast, paired, step_down, unpaired
from launcher.study.analysis.successive_halving import survivors
from launcher.study.report import export
from launcher.study.report.tables import pairs_table
from launcher.study.report.words import findings, headline
from tests.conftest import HOME
from tests.made_studies import entry, study, whole
from trainer.core.fields import Refused

STUDIES = 4_000
MOST = stats.binom.isf(1e-4, STUDIES, ALPHA) / STUDIES  # a promise of 5 % that is kept shows less than this


def runs(*scores: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(scores, first))


def test_contrasts_are_student_and_welch() -> None:
    a, b = np.array([3.0, 5.0, 4.0, 6.5]), np.array([1.0, 4.5, 2.0, 3.0])
    for ours, theirs in (
        (paired(a - b), stats.ttest_rel(a, b)),
        (unpaired(a, b), stats.ttest_ind(a, b, equal_var=False)),
    ):
        assert ours.p() == pytest.approx(theirs.pvalue, rel=1e-12)
        assert ours.interval(0.05) == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-9)
        low, high = ours.effect_interval(0.05)
        n = np.sqrt(ours.count)
        assert stats.nct.cdf(ours.t, ours.freedom, [low * n, high * n]) == pytest.approx([0.975, 0.025], abs=1e-6)


def test_hedges_g_is_without_bias() -> None:
    truth = Truth((0.8, 0.0), (0.5**0.5,) * 2)
    assert contrasts(truth.draw(40_000, 5)).effect().mean() == pytest.approx(0.8, abs=0.02)


def test_sign_flip_counts_all_signs() -> None:
    assert statistics.sign_flip(np.array([1.0, 2.0, 3.0])) == 0.25
    assert statistics.sign_flip(np.array([0.1, 0.2, -0.3])) == 1.0  # the sum is 0 but for rounding
    assert statistics.sign_flip(np.arange(1.0, 11.0)) == 2 / 2**10
    assert statistics.sign_flip(np.ones(21)) is None


def test_multipliers_are_shaffers() -> None:
    assert statistics.multipliers(3, 3).tolist() == [3, 1, 1]
    assert statistics.multipliers(6, 4).tolist() == [6, 3, 3, 3, 2, 1]  # Shaffer 1986, table 2
    assert statistics.multipliers(2, 3).tolist() == [2, 1]  # one of the three pairs had no test
    assert step_down(np.array([0.04, 0.01, 0.5]), 3) == pytest.approx([0.04, 0.03, 0.5])
    assert step_down(np.array([[0.01, 0.02], [0.9, 0.8]]), 3) == pytest.approx(np.array([[0.02, 0.02], [1.0, 1.0]]))


@pytest.mark.parametrize("noise", ["normal", "log-normal", "heavy tails (t, 3)"])
@pytest.mark.parametrize("arms", [2, 3, 6])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_wrong_verdicts_and_misses_are_at_most_5_percent(noise: str, arms: int, seeds: int) -> None:
    for shared in (0.0, 0.6):
        truth = Truth((0.0,) * arms, (1.0,) * arms, noise, shared)
        found = contrasts(truth.draw(STUDIES, seeds))
        assert wrong(found, truth).mean() <= MOST
        assert 1 - covered(found, truth).mean() <= MOST


@pytest.mark.parametrize("noise", ["normal", "heavy tails (t, 3)"])
@pytest.mark.parametrize("means", [(0.0,) * 4, (0.0, 0.0, 9.0, 9.0), (0.0, 0.0, 0.0, 30.0), (0.0, 0.3, 0.6, 20.0)])
def test_error_rates_hold_whatever_is_true(noise: str, means: tuple[float, ...]) -> None:
    truth = Truth(means, (0.5, 1.0, 2.0, 4.0), noise)
    found = contrasts(truth.draw(STUDIES, 5))
    assert wrong(found, truth).mean() <= MOST
    assert 1 - covered(found, truth).mean() <= MOST


def test_two_arms_err_in_5_percent_and_not_less() -> None:
    least = stats.binom.isf(1 - 1e-4, STUDIES, ALPHA) / STUDIES
    for seeds in (3, 10):
        truth = Truth((0.0, 0.0), (1.0, 3.0), shared=0.6)
        assert least <= wrong(contrasts(truth.draw(STUDIES, seeds)), truth).mean() <= MOST


def wrong_freedom(a: Array, b: Array) -> Contrast:
    right = paired(a - b)
    return Contrast(right.difference, right.spread, right.count, right.freedom + right.count - 1)


def test_mistakes_would_be_seen() -> None:
    equal = Truth((0.0,) * 4, (1.0,) * 4)
    scores = equal.draw(STUDIES, 3)
    assert wrong(contrasts(scores), equal, lambda p, arms: p).mean() > MOST  # no correction
    assert wrong(contrasts(scores, wrong_freedom), equal).mean() > MOST
    assert covered(contrasts(scores, wrong_freedom), equal).mean() < 1 - MOST
    one_apart = Truth((0.0, 0.0, 0.0, 90.0), (1.0,) * 4)  # three null hypotheses are true, whatever was rejected
    scores = one_apart.draw(STUDIES, 5)
    assert wrong(contrasts(scores), one_apart).mean() <= MOST
    assert wrong(contrasts(scores), one_apart, lambda p, arms: 2 * p).mean() > MOST  # a multiplier too small
    mirrored = np.stack([scores[:, 0], -scores[:, 0]], 1)  # pairs matter: unpaired runs would be taken for independent
    assert wrong(contrasts(mirrored, unpaired), Truth((0.0, 0.0), (1.0, 1.0))).mean() > MOST


def test_forecast_of_seeds_gives_the_power_it_names() -> None:
    for effect in (0.7, 1.2, 2.5):
        needed = statistics.seeds_needed(effect, 1, ALPHA)
        assert needed
        truth = Truth((effect, 0.0), (0.5**0.5,) * 2)
        power, less = ((contrasts(truth.draw(20_000, n)).p() < ALPHA).mean() for n in (needed, needed - 1))
        assert less < 0.81
        assert power > 0.79
    assert statistics.seeds_needed(0.05, 1, ALPHA) is None


def test_forecasts_are_right_within_a_factor_of_two_and_a_half() -> None:
    found = contrasts(Truth((1.2, 0.0), (0.5**0.5,) * 2).draw(400, 5))
    open_ = found.p()[:, 0] >= ALPHA
    guesses = [
        statistics.seeds_needed(float(d), 1, ALPHA) or 1_000 for d in (found.difference / found.spread)[open_, 0]
    ]
    assert 8 / 2.5 <= np.median(guesses) <= 8 * 2.5


@given(
    st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.sampled_from([*combinations(range(n), 2)]))))
)
def test_letters_are_shared_if_and_only_if_not_apart(drawn: tuple[int, set[tuple[int, int]]]) -> None:
    names = [f"arm {i}" for i in range(drawn[0])]
    apart = {(names[a], names[b]) for a, b in drawn[1]}
    given_letters = group_letters(names, apart)
    for a, b in combinations(names, 2):
        assert bool({*given_letters[a]} & {*given_letters[b]}) == ((a, b) not in apart)


def test_a_clear_study() -> None:
    scores = {"worse": runs(30, 33, 31, 32), "best": runs(10, 13, 11.5, 12), "alike": runs(31, 32.2, 30, 33)}
    answer = compare_arms(made := study(scores))
    assert [arm.arm for arm in answer.arms] == ["best", "worse", "alike"]
    assert [arm.letters for arm in answer.arms] == ["a", "b", "b"]
    assert headline(made, answer).startswith("best is better than each of the others (p")
    told = [*findings(made, answer)]
    assert "best is better than worse and alike" in told[0]
    assert "worse and alike cannot be separated" in told[1]
    pair = answer.pair("alike", "best")
    assert pair
    assert pair.a == "best"
    assert pair.beats
    assert pair.effect
    assert pair.effect.value
    assert pair.effect.value > 0
    assert pair.beats.low is not None
    assert 0.5 < pair.beats.low <= pair.beats.value
    assert pair.difference.high is not None
    assert pair.difference.high < 0
    turned = compare_arms(study(scores, better="higher"))
    assert [arm.arm for arm in turned.arms] == ["alike", "worse", "best"]
    assert all(p.effect and (p.effect.value or 0) >= 0 for p in turned.pairs)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_verdict_points_where_the_tested_difference_does(sign: int) -> None:
    """B has the better mean only by a seed that A has not."""
    scores = {"A": runs(10, 11, 12), "B": runs(11, 12.01, 13.02, 1)}
    scores = {arm: {seed: sign * score for seed, score in of_arm.items()} for arm, of_arm in scores.items()}
    answer = compare_arms(made := study(scores, better="lower" if sign == 1 else "higher"))
    pair = answer.pair("A", "B")
    assert pair
    assert (pair.a, pair.b, pair.separated) == ("A", "B", True)
    assert sign * pair.difference.value == pytest.approx(-1.01)
    assert pair.effect
    assert pair.effect.value
    assert pair.effect.value > 0
    assert answer.unbeaten == ["A"]
    assert [(arm.arm, arm.letters) for arm in answer.arms] == [("A", "a"), ("B", "b")]
    assert headline(made, answer).startswith("A is better than B")
    assert any(
        "B has the better mean over all its seeds, but A is better on the 3" in f for f in findings(made, answer)
    )


def test_verdicts_that_go_round_in_a_circle_have_no_winner() -> None:
    """Each pair shares seeds of its own."""
    a, b, c = ({seed: 0.01 * seed for seed in range(9)} for _ in range(3))
    for seed, (better, worse, absent) in enumerate([(a, b, c)] * 3 + [(b, c, a)] * 3 + [(c, a, b)] * 3):
        better[seed] += 1 + 0.001 * seed
        worse[seed] += 2
        del absent[seed]
    answer = compare_arms(made := study({"a": a, "b": b, "c": c}))
    assert {(p.a, p.b) for p in answer.pairs if p.separated} == {("a", "b"), ("b", "c"), ("c", "a")}
    assert headline(made, answer).endswith("no ranking.")
    assert {arm.letters for arm in answer.arms} == {"a", "b", "c"}


def test_who_is_better_stands_first() -> None:
    assert rank_arms(["x", "y", "z"], {("z", "x")}) == ["y", "z", "x"]
    assert rank_arms(["x", "y", "z"], {("x", "y"), ("y", "z"), ("z", "x")}) == ["x", "y", "z"]


def test_two_seeds_have_no_effect_of_0_beside_intervals_that_exclude_it(tmp_path: Path) -> None:
    answer = compare_arms(made := study({"a": runs(1.0, 1.05), "b": runs(2.0, 2.2)}))
    (pair,) = answer.pairs
    assert pair.separated
    assert pair.effect
    assert pair.effect.value is None
    assert 0 < pair.effect.low < pair.effect.high
    assert pair.beats
    assert pair.beats.low is not None
    assert pair.beats.high is not None
    assert 0.5 < pair.beats.low < pair.beats.value <= pair.beats.high
    export.write_conclusions(made, answer, tmp_path / "conclusions.json")
    assert json.loads((tmp_path / "conclusions.json").read_text())["pairs"][0]["effect"]["value"] is None
    assert "<td class=tight>–<br><small>(+" in pairs_table(made, answer).replace('"', "")


def test_the_chance_to_win_is_median_unbiased() -> None:
    found = contrasts(Truth((0.8, 0.0), (0.5**0.5,) * 2).draw(STUDIES, 2))
    above = (found.median_effect() > 0.8).mean()
    assert stats.binomtest(int(STUDIES * above), STUDIES).pvalue > 1e-4


def test_effects_far_from_0_have_limits_and_come_back() -> None:
    """In a process of its own: the inverse of SciPy's noncentral t does not come back here, and hears no signal."""
    code = (
        "import numpy as np; from launcher.study.analysis.statistics import paired;"
        "found = paired(np.array([[-100, -100.0005], [100, 100.0005]]));"
        "print(*np.ravel([*found.effect_interval(0.05), found.median_effect()]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=HOME
    )
    lows_highs = np.array(said.stdout.split(), float) * np.sqrt(2)
    t = 100.00025 / 0.00025
    low, middle, high = t * np.sqrt(stats.chi2.ppf([0.025, 0.5, 0.975], 1))
    assert lows_highs == pytest.approx([-high, low, -low, high, -middle, middle], rel=1e-3)


@pytest.mark.parametrize("chance", [0.9999, 0.975, 0.5])
@pytest.mark.parametrize("freedom", [1.0, 2.0, 9.0])
@pytest.mark.parametrize("side", [1, -1])
def test_limits_do_not_jump_where_the_inverse_is_left(side: int, freedom: float, chance: float) -> None:
    t = side * np.geomspace(20, 1e5, 200)
    per_t = statistics.noncentrality(t, np.array([freedom]), chance) / t
    assert np.abs(np.diff(per_t)).max() < 0.01 * max(1, np.abs(per_t[-1]))


def test_two_seeds_are_a_test_and_one_is_not() -> None:
    one = compare_arms(made := study({"a": runs(1.0), "b": runs(2.0)}))
    assert one.pairs[0].refusal == ONE_SEED
    assert one.pairs[0].p_corrected is None
    assert headline(made, one).startswith("Nothing can be compared yet")
    assert not one.unbeaten
    two = compare_arms(study({"a": runs(1.0, 1.1), "b": runs(2.0, 2.3)}))
    assert two.pairs[0].p == pytest.approx(1 - 2 * np.arctan(11) / np.pi)  # t = 1.1 / 0.1, one degree of freedom


def test_pairs_without_spread_are_refused() -> None:
    answer = compare_arms(study({"a": runs(0.1, 0.2, 0.3), "b": runs(0.3, 0.4, 0.5), "c": runs(0.1, 0.5, 0.9)}))
    pair = answer.pair("a", "b")
    assert pair
    assert pair.refusal == NO_SPREAD
    assert not pair.separated


def test_missing_seeds_pair_what_there_is() -> None:
    answer = compare_arms(
        study({"a": runs(1.0, 1.2, 1.4, 1.1), "b": {1: 2.0, 3: 2.5, 9: 7.0}, "c": runs(5, 6, first=20)})
    )
    seeds = {(p.a, p.b): p.seeds for p in answer.pairs}
    assert seeds == {("a", "b"): 2, ("a", "c"): 0, ("b", "c"): 0}
    pair = answer.pair("a", "b")
    assert pair
    assert pair.difference.value == pytest.approx((1.2 + 1.1) / 2 - (2.0 + 2.5) / 2)
    assert all(p.p_sign_flip is None for p in answer.pairs if not p.seeds)


def test_one_arm_and_none_finished() -> None:
    one = study({"a": runs(1, 2)})
    assert headline(one, compare_arms(one)).startswith("One arm")
    made = study({"a": {}, "b": {}})
    answer = compare_arms(made)
    assert [arm.mean for arm in answer.arms] == [None, None]
    assert not answer.pairs


def test_failures_are_counted_and_tested() -> None:
    good = study({"good": runs(*range(1, 13)), "bad": runs(2, 4, 1)})
    failed = [entry("bad", seed, None, status="failed", reason="diverged") for seed in range(3, 12)]
    made = study({"good": {}, "bad": {}})
    made = results.Study(**{**vars(made), "entries": (*good.entries, *failed)})
    answer = compare_arms(made)
    bad = next(arm for arm in answer.arms if arm.arm == "bad")
    assert (bad.failed, bad.ended) == (9, 12)
    assert bad.failure_rate
    assert (bad.failure_rate.low, bad.failure_rate.high) == pytest.approx((0.4281, 0.9451), abs=1e-4)
    assert [(pair.often, pair.seldom) for pair in answer.failures] == [("bad", "good")]
    told = " ".join(findings(made, answer))
    assert "bad fails more often than good" in told
    assert "9 of 12 of bad" in told
    assert "over the runs that finished" in told


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    made = study({"a": runs(1.0, float("nan"), 1.3), "b": runs(2.0, 2.1, float("inf"))})
    assert compare_arms(made).pairs[0].seeds == 0  # only seed 0 is common
    with pytest.raises(ValueError, match="JSON"):
        results.write_results(made, tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()


@given(st.dictionaries(st.text("abcdefg", min_size=1), st.none() | st.integers(0, 4).map(float)), st.floats(0.05, 0.95))
def test_survivors_are_the_best(scores: dict[str, float | None], keep: float) -> None:
    kept = survivors(scores, keep, "lower")
    known = {arm: score for arm, score in scores.items() if score is not None}
    assert {*kept} <= known.keys()
    assert len(kept) >= min(len(known), np.ceil(round(keep * len(scores), 9)))
    assert all(known[arm] < known[other] for arm in kept for other in known.keys() - {*kept})
    mirrored = {arm: None if score is None else -score for arm, score in scores.items()}
    assert survivors(mirrored, keep, "higher") == kept


def test_survivors_are_as_many_as_asked() -> None:
    assert survivors({f"{i}": float(i) for i in range(10)}, 0.7, "lower") == tuple(f"{i}" for i in range(7))
    assert survivors({"a": 1.0, "b": 3.0, "c": 1.0, "d": 1.0}, 0.25, "lower") == ("a", "c", "d")  # ties go on together
    assert survivors({"a": None, "b": None}, 0.5, "lower") == ()


def test_the_chosen_score_too_well_on_the_seeds_that_chose() -> None:
    scores = Truth((0.0,) * 8, (1.0,) * 8).draw(2_000, 4)
    select, fresh = scores[..., :2].mean(-1), scores[..., 2:].mean(-1)
    chosen = select.argmin(1)
    flattered, honest = (of[np.arange(2_000), chosen].mean() for of in (select, fresh))
    assert flattered < -0.8
    assert abs(honest) < 4 / np.sqrt(4_000)


def test_arms_left_behind_are_not_ranked() -> None:
    scores = {"a": runs(1, 2, 1.5), "b": runs(5, 6.5, 5.2), "gone": runs(0.1, 0.1, 0.2)}
    made = study(scores, rungs=(Rung(10, {"a": 1.0, "b": 2.0, "gone": 9.0}, ("a", "b")),))
    answer = compare_arms(made)
    assert [(p.a, p.b) for p in answer.pairs] == [("a", "b")]
    assert [(arm.arm, arm.rung, arm.letters) for arm in answer.arms][-1] == ("gone", 1, "")
    assert "Left behind at rung 1" in [*findings(made, answer)][-1]


def test_selecting_runs_are_not_compared() -> None:
    made = study({"a": runs(1, 2, 1.5), "b": runs(5, 6.5, 5.2)})
    select = (entry("a", 7, 1000.0, role="select"), entry("b", 7, 0.0, role="select"))
    more = results.Study(**{**vars(made), "entries": (*made.entries, *select)})
    assert compare_arms(more) == compare_arms(made)


def test_results_read_back_and_refuse(tmp_path: Path) -> None:
    made, path = whole(tmp_path), tmp_path / "results.json"
    results.write_results(made, path)
    assert results.read_results(path) == made
    values = json.loads(path.read_text())
    broken = [
        ({**values, "schema": 9}, "schema 9"),
        ({**values, "nam": 1}, "no setting 'nam'"),
        ({**values, "better": "lowest"}, "better must be"),
        ({name: value for name, value in values.items() if name != "arms"}, "'arms' is missing"),
        ({**values, "entries": [{**values["entries"][0], "seed": "x"}]}, r"entries\[0\]: seed must be a whole number"),
        ({**values, "arms": {}}, "arms must be a list"),
    ]
    for content, message in broken:
        path.write_text(json.dumps(content))
        with pytest.raises(Refused, match=message):
            results.read_results(path)
    path.write_text('{"schema": NaN}')
    with pytest.raises(Refused, match="holds NaN"):
        results.read_results(path)


def test_power_rises_with_seeds() -> None:
    seeds = np.arange(2.0, 50.0)
    powers = statistics.power(0.8, seeds, seeds - 1, ALPHA)
    assert all(a < b for a, b in pairwise(powers))
