"""Studies from end to end at toy size, in one folder: what one has run, the others use."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pad_jax.data import READERS
from pad_jax.data.dataset import from_sequences
from pad_jax.errors import UserError
from pad_jax.evaluation.analysis import distances, kendall_tau, pairs_by_bucket, separation
from pad_jax.evaluation.significance import paired_t_test
from pad_jax.report.groups import RunGroup
from pad_jax.report.page import Page
from pad_jax.report.results import read_ranks, read_results
from pad_jax.run import run
from pad_jax.studies import ablate, analyse, compare, study
from pad_jax.studies.ablate import PAD
from pad_jax.studies.claims import AGREES, CHANCE, DISAGREES, UNTESTED, above
from pad_jax.studies.study import Row, Study
from tests.conftest import write_table

pytestmark = pytest.mark.xdist_group("studies")  # one worker: they share a folder
CLEAR = jax.clear_caches
EPOCHS = {"pretrain.epochs": 1, "align.epochs": 1, "finetune.epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def world(dataset, text, folder, monkeypatch, make_config):
    """A configuration on the tiny dataset, and the folder that all studies here share.

    Toy runs keep their programs, most of which are the same.
    """
    monkeypatch.setitem(READERS, "demo", lambda _: dataset)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    path = folder / "text.safetensors"
    write_table(path, text[1:], dataset, {"encoder": "random"})

    def config(job, **fields):
        return make_config("best", **EPOCHS | {"text.table": str(path), "job": job, "study.seeds": (0,)} | fields)

    return config


def page_of(folder, job, suffix):
    name = f"{job}-sasrec-ce-best-{suffix}"
    html = (folder / f"{name}.html").read_text()
    assert html.count("<img ") == html.count("data:image/svg+xml;base64,")
    markdown = (folder / f"{name}.md").read_text()
    assert "python main.py" in markdown
    for line in markdown.splitlines():
        if line.startswith("!["):
            assert (folder / line.rpartition("(")[2].rstrip(")")).exists()
    return markdown


def command(job):
    return f"python main.py --config=configs/demo.py:{job}"


def test_compare_and_its_continuation(world, folder, capsys):
    only = {"study.only": ("sasrec", "pad")}
    maps, held = Path("/proc/self/maps"), []
    with pytest.MonkeyPatch.context() as patch:
        if maps.exists():  # a system allows a process 65,530 maps, and the programs of one run hold a thousand
            patch.setattr(jax, "clear_caches", CLEAR)
            patch.setattr(study, "say", lambda line: held.append(len(maps.read_text().splitlines())))
        run(world("compare", **only), folder, command)
    assert len(held) in (0, 3)  # before each row, and before the report
    assert max(held, default=0) - min(held, default=0) < 400
    markdown = page_of(folder, "compare", "s0-part")
    pad = read_results(folder / "pad-sasrec-ce-best-s0")
    assert f"| **pad** | {100 * pad['test']['HR@10']:.2f} | {100 * pad['test']['nDCG@10']:.2f} |" in markdown
    assert "against the best baseline, sasrec" in markdown
    assert "| p against sasrec |" in markdown
    assert f"{pad['phases']['finetune']['parameters']:,}" in markdown
    capsys.readouterr()

    run(world("compare", **only | {"study.seeds": (0, 1)}), folder, command)  # seed 0 is not run again
    out = capsys.readouterr().out
    assert out.count("finished before") == 4
    assert read_results(folder / "pad-sasrec-ce-best-s0") == pad
    assert "±" in page_of(folder, "compare", "s0+1-part")


def test_rows_share_what_they_would_repeat(world, folder):
    """The ablation of an expert has PAD's own phases 1 and 2, which a run of its own would reach bit for bit."""
    name = "without aligned expert"
    run(world("ablate", **{"study.only": (name,)}), folder, command)
    markdown = page_of(folder, "ablate", "s0-part")
    assert "| **PAD** |" in markdown
    row = folder / "pad-sasrec-ce-best-s0,experts.use=id+text"
    pad, variant = (read_results(folder / path) for path in ("pad-sasrec-ce-best-s0", row))
    assert variant["phases"]["align"] == pad["phases"]["align"]
    assert variant["phases"]["finetune"] != pad["phases"]["finetune"]
    minus = [f"{100 * (variant['test'][m] - pad['test'][m]):+.2f} [" for m in ("HR@10", "nDCG@10")]
    cells = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |")).split(" | ")
    assert all(cell.startswith(difference) for cell, difference in zip(cells[3:5], minus, strict=True))
    alone = world("align", **{"experts.use": ("id", "text")})
    for job in ("pretrain", "align"):
        run(replace(alone, job=job), folder / "alone")
    ranks, expected = read_ranks(row), read_ranks(folder / "alone")
    for phase in ("pretrain", "align"):
        np.testing.assert_array_equal(ranks[f"test/{phase}"], expected[f"test/{phase}"])


def test_backbones(world, folder):
    run(world("backbones", **{"study.only": ("sasrec sasrec", "sasrec pad")}), folder, command)
    markdown = page_of(folder, "backbones", "s0-part")
    assert "| SASRec, alone |" in markdown
    assert "| SASRec, PAD |" in markdown


def test_analyse(world, folder):
    run(world("analyse"), folder, command)
    markdown = page_of(folder, "analyse", "s0")
    assert "nan" not in markdown
    assert "| cannot be tested here |" in markdown
    assert (
        "| c. three, ID expert |" + " 1.00 |" * 9 + " - |" in markdown
    )  # `best` freezes it; no item is in the last bucket
    for name in ("frequency", "kendall", "distances-cold", "distances-warm", "gate"):
        assert (folder / f"analyse-sasrec-ce-best-s0-{name}.svg").exists()


@pytest.mark.parametrize(
    ("job", "fields", "message"),
    [
        ("compare", {"study.only": ("sasrek",)}, "did you mean 'sasrec'"),
        ("compare", {"seed": 5}, "sets config.seed itself"),
        ("ablate", {"method": "smem"}, "sets config.method itself"),
        ("backbones", {"backbone": "caser"}, "sets config.backbone itself"),
        ("analyse", {"study.only": ("pad",)}, "needs all of its rows"),
    ],
)
def test_what_a_study_would_ignore_is_refused(world, tmp_path, job, fields, message):
    with pytest.raises(UserError, match=message):
        run(world(job, **fields), tmp_path / "nothing", command)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("seeds", [(0, 0), ()])
def test_seeds_of_a_study_are_different_whole_numbers(make_config, seeds):
    with pytest.raises(UserError, match=r"config\.study\.seeds must be"):
        make_config(**{"study.seeds": seeds})


def test_a_study_makes_the_text_table_before_it_trains(world, tmp_path, monkeypatch):
    """Every run sees it, SASRec's too, and nothing is trained when it cannot be made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pad_jax.text.encode.available", lambda: False)
    with pytest.raises(UserError, match="no torch"):
        run(world("compare", **{"text.table": ""}), tmp_path / "w", command)
    assert not (tmp_path / "w").exists()


class Group(RunGroup):
    """A finished row by its users' metric alone."""

    def __init__(self, values, seeds=(0,), **means):
        self.values, self.means = np.asarray(values, np.float64), means
        self.results = [{"seed": s, "test": {"nDCG@10": self.values.mean() + s / 100}} for s in seeds]

    def per_user(self, metric):
        del metric
        return self.values

    def mean(self, users, metric):
        del metric
        return self.means.get(users, self.values.mean())


def test_a_claim_is_more_than_an_order_of_numbers():
    noise = np.random.default_rng(0).normal(size=400)
    groups = {"high": Group(noise + 1), "low": Group(noise), "same": Group(np.random.default_rng(1).normal(size=400))}
    assert above("", groups, ["high"], ["low"], "HR@10").verdict == AGREES
    assert above("", groups, ["low"], ["high"], "HR@10").verdict == DISAGREES
    assert above("", groups, ["low"], ["same"], "HR@10").verdict == CHANCE
    assert above("", groups, ["high"], ["low", "same"], "HR@10").verdict == AGREES
    assert above("", groups, ["high", "low"], ["same"], "HR@10").verdict == CHANCE
    assert above("", groups, ["low", "same"], ["high"], "HR@10").verdict == DISAGREES
    missing = above("", groups, ["high"], ["low", "other"], "HR@10")
    assert missing == ("", "not run: other", UNTESTED)
    assert "high minus low: +100.00 [+100.00, +100.00]" in above("", groups, ["high"], ["low"], "HR@10").found


def test_claims_of_compare():
    """PAD against the best of all baselines, not the first, and only when all were run."""
    random = np.random.default_rng(0)
    levels = dict(zip(compare.METHODS, (1, 2, 3, 4, 5, 9, 6, 8), strict=True))
    groups = {
        name: Group(level + random.normal(size=500), warm=1.0, median=1.0, cold=1.0) for name, level in levels.items()
    }
    groups["pad"].means = {"warm": 1.1, "median": 1.2, "cold": 1.3}
    assert compare.best_baseline(groups) == "disco"
    first, smem, colder = compare.claims(groups, {"markov": 7.5})
    assert first.verdict == DISAGREES
    assert "against disco p < 0.001" in first.found
    assert "markov 7.50" in first.found
    assert smem.verdict == AGREES
    assert colder.verdict == AGREES
    groups["pad"].means["cold"] = 1.15
    assert compare.claims(groups, {})[2].verdict == DISAGREES
    groups["sasrec"].means["cold"] = 0.0
    assert compare.claims(groups, {})[2].verdict == UNTESTED
    del groups["make"]
    assert compare.claims(groups, {})[0].verdict == UNTESTED


def test_the_difference_of_seeds_is_of_the_same_seed():
    first, second = Group([1.0], seeds=(0, 1, 2)), Group([0.0], seeds=(1, 0))
    assert [(a["seed"], b["seed"]) for a, b in first.pairs(second)] == [(0, 0), (1, 1)]


def test_rows_of_an_ablation_are_what_pad_is_not(make_config):
    names = {row.name for row in ablate.rows(make_config("best"))}
    assert {"laplacian", "cosine_paper", "InfoNCE", "gate shared", "gate bucket_emb"} <= names
    assert not {"gaussian", "gate bucket"} & names
    other = {row.name for row in ablate.rows(make_config("best", **{"mmd.kernel": "laplacian"}))}
    assert "gaussian" in other
    assert "laplacian" not in other
    config = make_config("best")
    folders = [row.folder(config, 0) for row in ablate.rows(config)]
    assert len(set(folders)) == len(folders)
    assert "pad-sasrec-ce-best-s0,mmd.kernel=laplacian" in folders


def test_claims_of_kendalls_tau(make_config):
    """Each is judged by what it says: the coldest buckets most, every bucket, and nothing where tau is 1 by itself."""
    config = make_config("paper")
    ten = np.full(10, 0.8)

    def panels(loose, single=0.3, last=0.6, text=0.1):
        one = [*[single] * 9, 0.77]
        return {
            "a": {"anchored": ten.tolist(), "not anchored": loose},
            "b": {"without alignment": ten.tolist(), "with alignment": one},
            "c": {"one, aligned": one, "three, ID expert": [last] * 9 + [0.9], "three, aligned expert": [0.0] * 10},
            "d": {name: [text] * 10 for name in ("one, aligned", "three, aligned expert", "three, text expert")},
        }

    verdicts = [c.verdict for c in analyse.kendall_claims(panels([0.7] * 6 + [0.2] * 4), config)]
    assert verdicts == [AGREES] * 5
    assert analyse.kendall_claims(panels([0.2] * 6 + [0.7] * 4), config)[0].verdict == DISAGREES
    verdicts = [c.verdict for c in analyse.kendall_claims(panels([0.7] * 10, single=0.9, text=0.95), config)]
    assert verdicts[1:] == [DISAGREES] * 4
    assert analyse.kendall_claims(panels([np.nan] * 10), config)[0].verdict == UNTESTED
    assert analyse.kendall_claims(panels([0.7] * 10), make_config("best"))[3].verdict == UNTESTED


def test_a_study_that_was_killed_while_it_copied_goes_on(world, folder, monkeypatch):
    """Half a copy is replaced, and nothing of it counts before."""
    fields = {"study.only": ("gate shared",)}

    def kill(source, target):
        shutil.copytree(source, target)
        raise KeyboardInterrupt

    tools = SimpleNamespace(copy2=shutil.copy2, rmtree=shutil.rmtree, copytree=kill)
    monkeypatch.setattr("pad_jax.studies.study.shutil", tools)
    with pytest.raises(KeyboardInterrupt):
        run(world("ablate", **fields), folder, command)
    row = folder / "pad-sasrec-ce-best-s0,gate.kind=shared"
    assert (row / "pretrain" / "checkpoints.partial").exists()
    assert not (row / "pretrain" / "checkpoints").exists()
    monkeypatch.setattr("pad_jax.studies.study.shutil", shutil)
    run(world("ablate", **fields), folder, command)
    assert not (row / "pretrain" / "checkpoints.partial").exists()
    assert list(read_results(row)["phases"]) == ["pretrain", "align", "finetune"]

    for part in ("pretrain/metrics.jsonl", "align/checkpoints"):  # a part that was lost: nothing is copied
        path = folder / "pad-sasrec-ce-best-s0" / part
        path.rename(folder / "aside")
        with pytest.raises(UserError, match=f"{part}.* is missing; put it back"):
            run(world("ablate", **{"study.only": ("gate bucket_emb",)}), folder, command)
        assert not (folder / "pad-sasrec-ce-best-s0,gate.kind=bucket_emb" / "pretrain").exists()
        (folder / "aside").rename(path)


def test_a_row_needs_its_base(world, tmp_path):
    from pad_jax.studies.study import inherit

    study = Study(world("ablate"), tmp_path, "", [PAD])
    row = Row("x", fields={"gate.kind": "shared"}, base=PAD, shares=("pretrain",))
    with pytest.raises(UserError, match="has not finished pretrain"):
        inherit(study.run(row, 0), study.run(PAD, 0), row.shares)


def test_kendall_tau_and_separation():
    assert kendall_tau(np.arange(1, 6), np.array([1, 3, 2, 5, 4])) == pytest.approx(0.6)
    assert kendall_tau(np.array([1, 1, 2, 3]), np.array([1, 2, 2, 3])) == pytest.approx(0.8)
    assert np.isnan(kendall_tau(np.zeros(1), np.zeros(1)))
    random = np.random.default_rng(0)
    reference = random.random(1000)
    same = separation(reference, 5 * reference + 1)
    assert same["auc"] == same["ks"] == 1
    assert same["gap"] > 2
    other = separation(reference, random.random(1000))
    assert abs(other["auc"] - 0.5) < 0.15
    assert separation(reference, -reference)["auc"] == 0
    assert np.isnan(separation(reference[:19], reference[:19])["auc"])


def test_pairs_are_a_users_items_with_targets_and_others_of_the_bucket(dataset):
    from pad_jax.data.dataset import frequency_buckets

    pairs = pairs_by_bucket(dataset, 3)
    bucket, _ = frequency_buckets(dataset.counts, 3)
    for b in (1, 2, 3):
        assert (bucket[pairs[b][1]] == b).all()
    expected = []
    for u in range(dataset.users):
        events = dataset.events[dataset.starts[u] : dataset.starts[u + 1]]
        expected += [(i, events[-2]) for i in events[:-2] if i != events[-2]]
    assert len(pairs[0][0]) == 2 * len(expected)
    assert set(expected) <= set(zip(*pairs[0], strict=True))
    again = pairs_by_bucket(dataset, 3)
    np.testing.assert_array_equal(pairs[0][1], again[0][1])
    assert len(pairs_by_bucket(dataset, 3, most=5)[1][0]) == 5


def test_drawn_items_are_none_that_the_user_met():
    """Item 6 is the only one left for the first user, and none is for the second."""
    items = [f"i{i}" for i in range(6)]
    data = from_sequences("two", items, items, ["u", "v"], [[1, 2, 3, 4, 5], [6, 5, 4, 3, 2, 1]])
    first, second = pairs_by_bucket(data, 1)[1]
    assert list(zip(first[:6].tolist(), second[:6].tolist(), strict=True)) == [
        *((i, 4) for i in (1, 2, 3)),
        *((i, 6) for i in (1, 2, 3)),
    ]
    assert set(second[6:].tolist()) == {2}


def test_no_item_is_paired_with_itself():
    """Item 2 is a training item and the target."""
    items = [f"i{i}" for i in range(5)]
    first, second = pairs_by_bucket(from_sequences("one", items, items, ["u"], [[1, 2, 3, 2, 4]]), 1)[1]
    assert first.tolist() == [1, 3, 1, 3]
    assert second[:2].tolist() == [2, 2]
    assert set(second[2:].tolist()) == {5}


def test_distances_and_t_test():
    table = np.array([[0, 0], [3, 4], [0, 1]], np.float32)
    np.testing.assert_allclose(distances(table, (np.array([0, 1]), np.array([1, 2]))), [5, np.sqrt(18)])
    first, second = np.array([1.0, 2, 3, 4]), np.array([1.5, 2.5, 3, 5])
    difference = first - second
    t = difference.mean() / (difference.std(ddof=1) / 2)
    assert paired_t_test(first, second) == pytest.approx(0.0917, abs=1e-3)
    assert t == pytest.approx(-2.449, abs=1e-3)
    assert paired_t_test(first, first) == 1


def test_a_page_in_both_forms(tmp_path):
    from pad_jax.report import plots

    page = Page("A <title>")
    page.text("**bold** and `a < b`")
    page.table(["", "x"], [["row", "1"]])
    page.picture("bars", plots.grouped_bars(["a", "b"], {"one": [1.0, 2.0]}, "y"), "Two bars.")
    path = page.write(tmp_path, "page")
    html = path.read_text()
    assert "<h1>A &lt;title&gt;</h1>" in html
    assert "<b>bold</b> and <code>a &lt; b</code>" in html
    markdown = (tmp_path / "page.md").read_text()
    assert "| row | 1 |" in markdown
    assert "![Two bars.](page-bars.svg)" in markdown
    first = (tmp_path / "page-bars.svg").read_bytes()
    page.write(tmp_path, "page")
    assert (tmp_path / "page-bars.svg").read_bytes() == first
