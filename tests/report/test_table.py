"""The table of a run."""

from pad_jax.report.table import as_markdown, as_text


def metrics(hits, users, **more):
    return {"HR@10": hits, "nDCG@10": hits and hits / 2, "users": users, **more}


def results(**lists):
    groups = {
        "warm": metrics(1.0, 10),
        "median": metrics(0.5, 1000),
        "cold": metrics(0.25, 5),
        "unseen": metrics(None, 0),
    }
    test = metrics(1.0, 123_456, by_frequency=groups, **lists)
    choices = {"method": "pad", "backbone": "gru4rec", "loss": "ce", "recipe": "best", "seed": 0, "dataset": "shop"}
    return choices | {
        "phases": {"pretrain": {"test": test}, "align": {"test": test}},
        "baselines": {"popularity": None},
    }


def test_every_header_stands_over_its_column():
    lines = as_text(results()).splitlines()[1:]
    ends = [{place for place, letter in enumerate(line) if line[place + 1 : place + 2] in ("", " ")} for line in lines]
    titles = lines[0]
    for title in ("all (123,456)", "warm (10)", "median (1,000)", "cold (5)", "unseen (0)"):
        end = titles.index(title) + len(title) - 1
        assert all(end in found for found in ends), title
    assert len({len(line) for line in lines}) == 1


def test_runs_beside_it_stand_before_the_baselines():
    other = results() | {"method": "blend", "baselines": {}}
    lines = as_text(other | {"baselines": {"popularity": None}}, beside=[results()]).splitlines()[2:]
    assert [line.split("  ")[0] for line in lines] == [
        "blend (align)",
        "blend, phase pretrain",
        "pad (align)",
        "gru4rec, IDs only (pad's phase 1)",
        "popularity",
    ]


def test_metrics_of_lists_have_a_table_of_their_own():
    assert "first ten" not in as_markdown(results())
    found = as_markdown(results(**{"coverage@10": 0.5, "diversity@10": None}))
    assert "| | coverage, % | diversity |" in found
    assert "| pad (align) | 50.00 | - |" in found
    assert "| gru4rec, IDs only (pad's phase 1) | 50.00 | - |" in found
