"""The file of users and their lists: who is in it, what it says, and in a real browser that it shows it."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from pad_jax.data.dataset import FREQUENCY_GROUPS, from_sequences
from pad_jax.studies.users import EACH, Lists, contents, drawn, page_of
from tests.support.browser import PALE, chromium
from tests.support.data import small_config
from tests.support.served import random_model

MARKUP = '</script><img src=x onerror="window.hurt=1"> & <b>bold</b> <!--'
TITLES = [MARKUP, *(f"Crème brûlée {n}" for n in range(99))]


@pytest.fixture(scope="module")
def shop():
    """600 users of 100 items, few of which are met often."""
    random = np.random.default_rng(0)
    odds = 0.93 ** np.arange(100)
    sequences = [1 + random.choice(100, random.integers(4, 15), p=odds / odds.sum()) for _ in range(600)]
    return from_sequences("shop", [f"i{n}" for n in range(100)], TITLES, [f"u{u}" for u in range(600)], sequences)


@pytest.fixture(scope="module")
def shown(shop):
    """What the page has of two models with random weights."""
    split, lists = shop.split("test", 8), []
    sequences = np.split(shop.events, shop.starts[1:-1])
    histories = [[shop.item_ids[item - 1] for item in sequence[:-1]] for sequence in sequences]
    targets = [shop.item_ids[i - 1] for i in split.target]
    for seed, name in enumerate(("one", "two")):
        model = random_model(small_config(), TITLES, seed)
        lists.append(Lists(name, model, model.ranks(histories, targets), name == "two"))
    return contents("shop", shop, split, lists)


class Data(HTMLParser):
    """The JSON in a page, and the tags around it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.inside, self.text = [], False, ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = ("type", "application/json") in attrs

    def handle_data(self, data):
        self.text += data if self.inside else ""

    def handle_endtag(self, tag):
        self.inside = False


def test_fifty_of_each_group_or_all(shop):
    """Drawn among all users of the group, always the same ones."""
    split = shop.split("test", 8)
    found, again = drawn(shop, split), drawn(shop, split)
    sizes = []
    for name, (low, high) in FREQUENCY_GROUPS.items():
        counts = shop.counts[split.target]
        there = [place for place, count in enumerate(counts) if low <= count <= (high or (10**9 if low else 0))]
        assert len(set(found[name])) == len(found[name]) == min(EACH, len(there))
        assert set(found[name]) <= set(there)
        assert found[name].tolist() == again[name].tolist()
        if len(there) > 2 * EACH:
            assert found[name].tolist() != there[:EACH]
        sizes.append(len(there))
    assert max(sizes) > EACH > min(sizes)


def consistent(shown, dataset, length):
    """Each user's history is what the model read, no list has what the user had met, and ranks and lists agree."""
    sequences = np.split(dataset.events, dataset.starts[1:-1])
    for user in shown["users"]:
        events = sequences[dataset.user_ids.index(user["user"])].tolist()
        met, titles = events[:-1], dataset.titles
        assert [shown["items"][i][0] for i in user["history"]] == [titles[n - 1] for n in met[-length:]]
        assert user["earlier"] == len(met) - len(user["history"])
        assert shown["items"][user["target"]][0] == titles[events[-1] - 1]
        assert shown["items"][user["target"]][1] == dataset.counts[events[-1]]
        assert shown["items"][user["target"]][2] == user["group"]
        for own, about in zip(user["lists"], shown["lists"], strict=True):
            assert not {shown["items"][i][0] for i in own["items"]} & {titles[n - 1] for n in met}
            assert len(own["items"]) == min(shown["k"], dataset.items - len(set(met)))
            assert own["scores"] == sorted(own["scores"], reverse=True)
            np.testing.assert_allclose(np.sum(own["parts"], axis=1), own["scores"], atol=0.003)
            assert np.shape(own["parts"])[1] == len(about["experts"])
            assert user["met"] == (events[-1] in met)
            if user["met"]:
                continue  # a target that was met before is no candidate
            assert (user["target"] in own["items"]) == (own["rank"] <= shown["k"])
            if own["rank"] <= shown["k"]:
                assert own["items"].index(user["target"]) + 1 == own["rank"]


def test_what_it_says_of_each_user(shop, shown):
    consistent(shown, shop, 8)
    assert [list["served"] for list in shown["lists"]] == [False, True]
    assert [len([u for u in shown["users"] if u["group"] == g]) for g in range(4)] == [
        min(EACH, group["users"]) for group in shown["groups"]
    ]
    assert sum(group["users"] for group in shown["groups"]) == 600


def test_titles_are_text_and_nothing_is_loaded(shown):
    page = page_of(shown)
    found = Data(page)
    assert json.loads(found.text) == shown
    assert any(item[0] == MARKUP for item in shown["items"])
    assert not {"img", "b"} & set(found.tags)
    assert found.tags.count("script") == 2
    assert b"http" not in page.replace(b"http-equiv", b"")
    assert b"default-src 'none'" in page


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, shown, tmp_path):
    """Opens the file; afterwards nothing may have gone wrong in it, and it may have asked for nothing else."""
    (tmp_path / "users.html").write_bytes(page_of(shown))
    pages, wrong, asked = [], [], []

    def visit(width=1200, fragment=""):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        pages.append(page)
        page.goto(f"file://{tmp_path}/users.html{fragment}")
        return page

    yield visit
    for page in pages:
        page.close()
    assert not wrong
    assert {url for url in asked if not url.startswith("data:")} == {f"file://{tmp_path}/users.html"}


def of_group(shown, group):
    return [user for user in shown["users"] if user["group"] == group]


def titles_of(shown, items):
    return [shown["items"][item][0] for item in items]


def listed(page, place=0):
    return page.locator("#lists > section").nth(place).locator(".list > li > .title").all_text_contents()


@pytest.mark.slow
def test_a_user_is_chosen_by_keys(visit, shown):
    page = visit()
    assert listed(page) == titles_of(shown, of_group(shown, 0)[0]["lists"][1]["items"])  # what is served
    page.focus("#group")
    page.keyboard.press("ArrowDown")
    for _ in range(2):  # find, user
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    user = of_group(shown, 1)[2]
    own = user["lists"][1]
    assert page.locator("#events .title").all_text_contents() == titles_of(shown, user["history"])
    assert listed(page) == titles_of(shown, own["items"])
    assert page.locator("#target-item").inner_text().startswith(titles_of(shown, [user["target"]])[0])
    assert page.inner_text("#ranks strong") == ("no rank" if user["met"] else f"rank {own['rank']:g}")
    assert page.locator("#ranks .hit").count() == page.locator("#lists .tag.hit").count() == (own["rank"] <= 10)
    assert page.locator("#lists .swatch").count() == 3
    widths = [part.bounding_box()["width"] for part in page.locator(".shares").first.locator("i").all()]
    parts = np.abs(own["parts"][0])
    assert np.array(widths) / sum(widths) == pytest.approx(parts / parts.sum(), abs=0.02)
    again = visit(fragment="#" + page.url.partition("#")[2])
    assert listed(again) == listed(page)


@pytest.mark.slow
def test_a_user_is_found_by_a_title(visit, shown):
    page = visit()
    page.select_option("#group", "-1")
    page.fill("#find", "BRULEE 40")
    expected = [user for user in shown["users"] if any("brûlée 40" in t for t in titles_of(shown, user["history"]))]
    assert page.locator("#user option").count() == len(expected) > 0
    assert page.locator("#events .title").all_text_contents() == titles_of(shown, expected[0]["history"])
    page.select_option("#other", "0")
    assert [listed(page, n) for n in (0, 1)] == [titles_of(shown, expected[0]["lists"][n]["items"]) for n in (1, 0)]
    page.click("#next")
    assert page.locator("#events .title").all_text_contents() == titles_of(shown, expected[1]["history"])
    page.fill("#find", "nothing like it")
    assert page.inner_text("#count") == "No user of this group has that in the history."
    assert page.is_hidden("#lists")
    page.fill("#find", "<b>bold")
    assert MARKUP in page.locator("#events .title").all_text_contents()
    assert page.locator("main img, main b").count() == 0
    assert page.evaluate("window.hurt") is None


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_width_contrast_and_names(visit, width, scheme):
    page = visit(width, "#group=-1&other=0")
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(PALE) == []
    for control in page.locator("button, input, select").all():
        assert control.evaluate("x => x.ariaLabel || (x.labels && x.labels.length) || x.textContent.trim()")
