"""The jobs of a first day: ours are done on a generated table, and every library has the same ones."""

import ast
import sys
from dataclasses import replace

import polars as pl
import pytest

from benchmarks.first_day import jobs
from pad_jax.errors import UserError


@pytest.fixture
def shop(tmp_path):
    return jobs.shop(tmp_path / "shop", *jobs.generated(), epochs=1)


@pytest.mark.slow
def test_our_jobs_are_done(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (train, first), *others = jobs.jobs_of("ours").items()
    model = first(shop)
    jobs.check(train, shop, model)
    for name, job in others:
        jobs.check(name, shop, job(shop, model))


def test_libraries_have_the_same_jobs_and_no_helpers():
    found = {library: list(jobs.lines_of(library)) for library in jobs.LIBRARIES}
    assert found["ours"] == found["rectools"] == found["implicit"]
    assert [name[:7] for name in found["ours"]] == [f"job_{n:02d}_" for n in range(1, 11)]
    for file, _ in jobs.LIBRARIES.values():
        docstring, *rest = ast.parse((jobs.HERE / file).read_text()).body
        assert isinstance(docstring, ast.Expr)
        assert all(isinstance(part, ast.Import | ast.ImportFrom | ast.FunctionDef) for part in rest)


def test_lines_are_those_of_code(tmp_path, monkeypatch):
    source = '''"""Of the file."""
def job_a(shop):
    """Of the job,

    on three lines."""
    # a comment
    text = """one

    two"""  # and one behind code

    return (
        text
    )
def job_b(shop):
    """It cannot be done, because."""
'''
    (tmp_path / "own.py").write_text(source)
    monkeypatch.setattr(jobs, "HERE", tmp_path)
    monkeypatch.setitem(jobs.LIBRARIES, "own", ("own.py", ""))
    assert jobs.lines_of("own") == {"job_a": 2 + 3, "job_b": 0}


def test_wrong_answers_are_refused(shop):
    events = pl.read_csv(shop.events)
    met = events.filter(user=shop.user)["item"].to_list()
    fresh = [item for item in pl.read_csv(shop.items)["item"] if item not in {*met, *shop.history, shop.item}]
    reversed_ = [*shop.candidates[:8], "new-2", "new-1"]
    lists = pl.DataFrame({"user": [shop.user] * 10, "item": fresh[:10]})
    lists.write_csv(shop.folder / "lists.csv")
    shares = dict.fromkeys(("all", "warm", "median", "cold"), 0.5)
    outside = [item for item in fresh if item not in shop.stock]
    wrong = {
        "job_01_train": [None],
        "job_02_lists": [shop.folder / "lists.csv"],
        "job_03_history": [fresh[:9], fresh[:9] * 2, [*fresh[:9], shop.history[0]]],
        "job_04_new_item": [fresh[:10], reversed_],
        "job_05_in_stock": [[*shop.candidates[:8], *outside[:2]]],
        "job_06_similar": [[*fresh[:9], shop.item]],
        "job_07_because": [fresh[0], None],
        "job_08_by_group": [{"model": shares, "popularity": shares}],
        "job_09_elsewhere": [(fresh[:10], fresh[1:11])],
        "job_10_next_week": [pl.read_csv(shop.later).filter(user=shop.arrival)["item"].to_list() + fresh[:9]],
    }
    assert wrong.keys() == jobs.lines_of("ours").keys()
    for name, answers in wrong.items():
        for answer in answers:
            with pytest.raises(AssertionError):
                jobs.check(name, shop, answer)
    jobs.check("job_04_new_item", shop, shop.candidates)
    jobs.check("job_03_history", replace(shop, history=[]), fresh[:10])


def test_what_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit", None)
    monkeypatch.delitem(sys.modules, "benchmarks.first_day.implicit_", raising=False)
    with pytest.raises(UserError, match=r"the jobs of implicit need .*: pip install implicit==0\.7\.3"):
        jobs.jobs_of("implicit")
