"""Verdicts, families and questions of the protocol."""

from dataclasses import replace

import numpy as np
import pytest

from pad_jax.evaluation.significance import Effect, effect, holm
from pad_jax.report.page import Page
from pad_jax.studies import judgement
from pad_jax.studies.judgement import CUT, EXCLUDED, FAILS, HOLDS, OPEN, UNTESTED, Measured, known_rows, verdict
from pad_jax.studies.study import Row

GROUPS = {"warm": 150, "median": 400, "cold": 120, "unseen": 30}
PATIENT, CUT_SHORT = [(12, False), (20, False)], [(12, False), (9, True)]


def measured(dataset="pantry", seeds=(0, 1), **levels):
    """Rows of users in four groups, all of a level and noise; `sasrec`, `smem`, `pad`, .. are what they are called."""
    random = np.random.default_rng(len(dataset))
    users = sum(GROUPS.values())
    of_group = np.repeat(list(GROUPS), list(GROUPS.values()))
    rows = {name: {s: random.normal(level, 1, users) for s in seeds} for name, level in levels.items()}
    unlearned = {"counts": 3.0, "words": 2.0}
    rows |= {name: dict.fromkeys(seeds, random.normal(0, 1, users)) for name in unlearned}
    known = {name: name for name in levels} | ({"without MMD": "plain"} if "plain" in levels else {})
    return Measured(dataset, rows, unlearned, known, {name: of_group == name for name in GROUPS})


@pytest.mark.parametrize(
    ("mean", "high", "p", "bar", "expected"),
    [
        (0.1, 0.2, 0.049, 0.0, HOLDS),
        (0.1, 0.2, 0.049, 0.5, HOLDS),
        (-0.1, 0.0, 0.001, 0.5, FAILS),
        (0.1, 0.2, 0.05, 0.0, OPEN),
        (0.1, 0.2, 0.3, 0.2, OPEN),
        (-0.1, 0.19, 0.3, 0.2, f"{OPEN}; {EXCLUDED}"),
    ],
)
def test_verdicts_are_those_of_the_protocol(mean, high, p, bar, expected):
    assert verdict(Effect(mean, mean - 0.1, high, p, 0.1, 50), p, bar) == expected


def test_questions_compare_what_the_protocol_names():
    found = measured(sasrec=0.0, smem=0.0, make=0.0, plain=0.0, pad=0.1, blend=1.0)
    pairs = [[(c.upper, c.lower, c.users) for c in question] for question in (found.alignment(), found.pad())]
    assert pairs[0] == [("pad", "plain", "all"), ("pad", "plain", "cold")]
    assert pairs[1] == [("pad", name, "all") for name in ("sasrec", "smem", "counts")]  # 3.0 on validation
    blend = [(c.lower, c.users) for c in found.blend()]
    everything = [("sasrec", "all"), ("smem", "all"), ("make", "all"), ("plain", "all"), ("pad", "all")]
    everything += [("counts", "all"), ("words", "all")]
    assert blend[:7] == everything
    by_group = {(row, users) for row in ("sasrec", "counts", "words") for users in ("warm", "median", "cold")}
    assert set(blend[7:]) == by_group  # 30 unseen users are too few
    assert [c.size for c in found.alignment()] == [700, 120]
    assert [c.paper for c in found.pad()] == [0, 0.0954, 0]
    assert {c.paper for c in measured("beauty", smem=0.0, pad=0.1).pad()} == {0}
    assert measured(sasrec=0.0).alignment() == measured(sasrec=0.0).pad() == measured(sasrec=0.0).blend() == []


def test_a_comparison_is_of_the_same_users_and_seeds():
    found = measured(sasrec=0.0, pad=0.3)
    cold = found.groups["cold"]
    compared = found.compare("pad", "sasrec", "cold")
    rows = [np.array([row[s][cold] for s in (0, 1)]) for row in (found.rows["pad"], found.rows["sasrec"])]
    assert compared.found == pytest.approx(effect(rows[0] - rows[1]))
    assert compared.base == pytest.approx(rows[1].mean())


def test_the_regret_is_over_large_groups_alone():
    found = measured(sasrec=5.0, pad=10.0)
    means = {n: [np.mean([v[u] for v in found.rows[n].values()]) for u in found.large.values()] for n in found.known}
    assert [len(of_row) for of_row in means.values()] == [3, 3]
    regrets = found.regrets()
    assert regrets["pad"] == (0, 0, 0)
    expected = 1 - np.mean(np.divide(means["sasrec"], means["pad"]))
    assert regrets["sasrec"][0] == pytest.approx(expected)
    assert regrets["sasrec"][1] < expected < regrets["sasrec"][2]


def test_families_are_those_of_the_protocol(make_config, tmp_path, monkeypatch):
    """Question 1 is one family over all datasets, questions 2 and 3 one for each."""
    levels = {"sasrec": 0.0, "plain": 0.0, "pad": 0.1, "blend": 0.15}
    of = {"pantry": measured("pantry", **levels), "beauty": measured("beauty", **levels)}
    of["beauty"] = replace(of["beauty"], lengths={"pad": {"align": CUT_SHORT}})
    config, seen = make_config("best", job="compare"), {}
    monkeypatch.setattr(judgement, "measured", lambda study: of[study.dataset_sha256])
    monkeypatch.setattr(
        judgement, "question", lambda page, title, cs, corrected, untested="": seen.update({title[0]: (cs, corrected)})
    )
    studies = [judgement.Study(config, tmp_path, "", [Row("pad")], name) for name in of]
    page = judgement.front(studies)
    told = [text for text in page._markdown if text.startswith("Ended by their minutes")]
    assert len(told) == 1
    assert "on beauty (" in told[0]
    assert "pad, align: (12), 9." in told[0]
    first, corrected = seen["1"]
    assert [corrected[id(c)] for c in first] == holm([c.found.p for c in first])
    assert len(first) == 4
    for name in of:
        family = [c for number in ("2", "3") for c in seen[number][0] if c.dataset == name]
        assert [corrected[id(c)] for c in family] == holm([c.found.p for c in family])
        assert len(family) == 2 + 5 + 9


def test_what_a_recipe_leaves_out_cannot_be_tested(make_config):
    assert judgement.has_mmd(make_config("best"))
    for fields in ({"mmd.weight": 0.0}, {"alignment.loss": "infonce"}):
        assert not judgement.has_mmd(make_config("best", **fields))
    page = Page("")
    judgement.question(page, "1", [], {}, UNTESTED)
    assert page._markdown[-1] == f"{UNTESTED}."


@pytest.mark.parametrize(
    ("pad", "plain", "told", "cut"),
    [
        (PATIENT, [(8, False), (8, False)], "", False),
        (CUT_SHORT, PATIENT, "pad, finetune: (12), 9", True),
        (PATIENT, CUT_SHORT, "plain, finetune: (12), 9", True),
        (CUT_SHORT, CUT_SHORT, "pad, finetune: (12), 9; plain, finetune: (12), 9", False),  # both as long
    ],
)
def test_two_rows_are_not_judged_where_a_clock_decided(pad, plain, told, cut):
    shared = {"pretrain": [(30, True), (30, True)]}  # as long in both, since one copies the other's
    lengths = {
        "pad": shared | {"finetune": pad},
        "plain": shared | {"finetune": plain},
        "sasrec": {"pretrain": [(30, True), (30, True)]},
    }
    found = replace(measured(sasrec=0.0, plain=0.0, pad=0.1), lengths=lengths)
    assert [c.cut for c in found.alignment()] == [cut, cut]
    assert [c.cut for c in found.pad()] == [pad is CUT_SHORT, True]  # `sasrec` has the same phase 1, counting has none
    assert found.compare("plain", "pad", "cold").cut == cut
    of_pretrain = [f"{row}, pretrain: 30, 30" for row in ("pad", "plain", "sasrec")]
    assert sorted(found.ended_by_minutes().split("; ")) == sorted([*of_pretrain, *filter(None, told.split("; "))])
    page, pairs = Page(""), found.alignment()
    judgement.question(page, "1", pairs, {id(c): 0.001 for c in pairs})
    assert page._markdown[-1].splitlines()[-1].endswith(f" {CUT} |") == cut


def test_rows_are_called_by_their_labels():
    page, found = Page(""), Effect(0.1, 0.0, 0.2, 0.04, 0.1, 50)
    pair = judgement.Comparison("pantry", "blend", "disco", "all", 150, found, 0.2)
    judgement.question(page, "3", [pair], {id(pair): 0.5})
    assert "| blend above chunks + CLUB (after DisCo) |" in page._markdown[-1]
    judgement.regret_table(page, [measured("pantry", disco=0.1, blend=0.2)])
    assert "\n| chunks + CLUB (after DisCo) |" in page._markdown[-1]


def test_a_difference_from_nothing_has_no_percentage():
    page, found = Page(""), Effect(0.1, 0.0, 0.2, 0.04, 0.1, 50)
    pair = [judgement.Comparison("pantry", "pad", "sasrec", "unseen", 150, found, base) for base in (0.0, 0.2)]
    judgement.question(page, "3", pair, {id(c): 0.08 for c in pair})
    first, second = page._markdown[-1].splitlines()[-2:]
    assert "| unseen (150) | 50 | +10.00 [+0.00, +20.00] | - | 0.040 |" in first
    assert "| +10.00 [+0.00, +20.00] | 50.00 % | 0.040 |" in second


def test_rows_are_known_by_what_they_are():
    rows = [Row("a", "smem"), Row("b", fields={"mmd.weight": 0.0}), Row("c", fields={"mmd.kernel": "linear"}), Row("d")]
    assert known_rows(rows) == {"smem": "a", "without MMD": "b", "pad": "d"}
