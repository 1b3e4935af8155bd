"""The page in a real browser: everything on it is used once."""

import asyncio
import re
import socket
import threading
import time

import pytest
import uvicorn

from pad_jax.service import settings_from
from pad_jax.service.app import Service, application
from pad_jax.service.models import sources
from tests.service.conftest import MARKUP, TITLES
from tests.support.browser import PALE, chromium

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]


#: `pending` requests, and `since` when it has been the same number.
_COUNT = """
window.pending = 0; window.since = 0;
const real = window.fetch;
const count = (by) => { window.pending += by; window.since = performance.now(); };
window.fetch = (...values) => { count(1); return real(...values).finally(() => count(-1)); };
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(models, tmp_path_factory):
    """(address, service) of two models."""
    folder = tmp_path_factory.mktemp("models")
    found = sources([folder / name for name in models], lambda path: models[path.name], frozenset(["u3"]))
    service = Service(found, settings_from({"reload": 0.0}), folder)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(application(service), log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", service
        server.should_exit = True
        thread.join()


@pytest.fixture
def visit(browser, site):
    """Opens the page; afterwards nothing may have gone wrong in it."""
    pages, wrong = [], []

    def visit(fragment="", width=1280, height=900):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.set_default_timeout(60_000)
        page.add_init_script(_COUNT)
        pages.append(page)
        page.goto(site[0] + fragment)
        page.wait_for_selector(".list > li")
        rest(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert not wrong


def rest(page):
    """Waits until what the page has asked for is there, reasons included."""
    page.evaluate("window.since = performance.now()")
    until = time.monotonic() + 60
    while not page.evaluate("!window.pending && performance.now() - window.since > 350"):  # its policy forbids more
        assert time.monotonic() < until
        page.wait_for_timeout(20)


def listed(page, place=0):
    return page.locator("#lists > section").nth(place).locator(".list > li > .title").all_text_contents()


def expected(models, history, k=10, name="first", **dials):
    return models[name].recommend([history], k, **dials).titles[0].tolist()


def test_a_history_is_put_together(visit, models):
    page = visit()
    assert listed(page) == models["first"].popular(10).titles[0].tolist()
    assert "Nothing yet" in page.inner_text("#whose")
    page.fill("#find", "green tea")
    page.wait_for_selector("#found li")
    assert page.get_attribute("#find", "aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#find", "aria-activedescendant") == "found-1"
    page.keyboard.press("Enter")  # Green tea 1
    rest(page)
    assert listed(page) == expected(models, ["i1"])
    page.fill("#find", "BRULEE 3")
    page.locator("#found li").first.click()
    rest(page)
    assert listed(page) == expected(models, ["i1", "i14"])
    assert page.locator("#events .title").all_text_contents() == [TITLES[1], TITLES[14]]
    title = listed(page)[2]
    page.get_by_role("button", name=f"Add {title} to the history", exact=True).click()
    rest(page)
    assert listed(page) == expected(models, ["i1", "i14", f"i{TITLES.index(title)}"])
    page.get_by_role("button", name=f"Remove {TITLES[1]}", exact=True).click()
    rest(page)
    assert listed(page) == expected(models, ["i14", f"i{TITLES.index(title)}"])
    page.fill("#find", "nothing like it")
    page.wait_for_selector("text=Nothing is called that.")
    page.keyboard.press("Escape")
    assert page.is_hidden("#found")
    page.click("#clear")
    rest(page)
    assert listed(page) == models["first"].popular(10).titles[0].tolist()


def test_a_user_and_the_event_that_is_hidden(visit, models):
    page = visit()
    page.fill("#user", "u3")
    page.locator("#people li").first.click()
    rest(page)
    history = [f"i{n}" for n in range(3, 9)]
    assert page.is_checked("#hold")
    assert listed(page) == expected(models, history[:-1])
    rank = int(models["first"].ranks([history[:-1]], [history[-1]])[0])
    assert page.inner_text("#ranks").startswith(f"rank {rank} of 22 in first")
    assert TITLES[8] in page.inner_text("#target-item")
    assert "training has not seen" in page.inner_text("#target-note")
    page.click("#hold")
    rest(page)
    assert page.is_hidden("#target")
    assert listed(page) == expected(models, history)
    page.click("#any")
    rest(page)
    assert re.fullmatch(r"u\d+", page.input_value("#user"))


def test_what_a_list_says(visit, models):
    """Titles, scores, parts of experts, training counts, reasons, as the library has them."""
    page = visit("#item=i1&item=i4&item=i2")
    found = models["first"].recommend([["i1", "i4", "i2"]], 10, explain=True)
    rows = page.locator(".list > li")
    for place in range(10):
        row = rows.nth(place)
        text = row.inner_text()
        item = int(found.items[0, place][1:])
        count = int(models["first"].artifact.counts[item + 1])
        assert found.titles[0, place] in text
        assert f"{found.scores[0, place]:.2f}" in text
        assert f"{count} in training" in text
        assert ("cold" in text) == (1 <= count <= 6)
        assert ("unseen" in text) == (count == 0)
        if found.because[0, place]:
            assert f"because of {TITLES[int(found.because[0, place][1:])]}" in text
        told = row.locator(".shares").get_attribute("aria-label")
        parts = [float(part) for part in re.findall(r" (-?[\d.]+)(?:,|$)", told)]
        assert parts == pytest.approx(found.parts[0, place].tolist(), abs=0.006)
        widths = [part.bounding_box()["width"] for part in row.locator(".shares i").all()]
        whole = abs(found.parts[0, place])
        assert [w / sum(widths) for w in widths] == pytest.approx((whole / whole.sum()).tolist(), abs=0.02)
        striped = [bool("below" in part.get_attribute("class")) for part in row.locator(".shares i").all()]
        assert striped == (found.parts[0, place] < 0).tolist()


def test_dials_answer_while_they_move_and_stale_answers_are_dropped(visit, models, site, monkeypatch):
    page = visit("#item=i1&item=i4")
    service, slow = site[1], []
    real = service.batches.ask

    async def ask(key, work, asked):
        answer = await real(key, work, asked)
        if getattr(key[1], "popularity", 0) == -1 and not slow:  # the first answer is the last to arrive
            slow.append(key)
            await asyncio.sleep(0.7)
        return answer

    monkeypatch.setattr(service.batches, "ask", ask)
    page.focus("#popularity")
    page.keyboard.press("Home")
    page.wait_for_timeout(150)
    page.keyboard.press("End")
    page.wait_for_timeout(1200)
    rest(page)
    assert slow
    assert page.inner_text("#popularity-value") == "1"
    assert listed(page) == expected(models, ["i1", "i4"], popularity=1.0)
    page.focus("#diversity")
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    rest(page)
    assert listed(page) == expected(models, ["i1", "i4"], popularity=1.0, diversity=0.6)
    page.select_option("#k", "25")
    rest(page)
    assert len(listed(page)) == 20  # 22 items without the history
    page.click("#reset")
    rest(page)
    assert listed(page) == expected(models, ["i1", "i4"])


def test_two_models_side_by_side(visit, models):
    page = visit("#item=i1&item=i4")
    page.select_option("#other", "second")
    rest(page)
    lists = [listed(page, 0), listed(page, 1)]
    assert lists == [expected(models, ["i1", "i4"], name=name) for name in ("first", "second")]
    assert set(lists[0]) != set(lists[1])
    for place, own in enumerate(lists):
        rows = page.locator("#lists > section").nth(place).locator(".list > li")
        marked = [row.locator(".tag.only").count() == 1 for row in rows.all()]
        assert marked == [title not in lists[1 - place] for title in own]
    page.select_option("#model", "second")
    page.select_option("#other", "")
    rest(page)
    assert listed(page) == lists[1]
    assert page.locator("#lists > section").count() == 1


def test_similar_items_of_each_expert(visit, models):
    page = visit("#item=i1&item=i4")
    title = listed(page)[0]
    page.get_by_role("button", name=f"Items similar to {title}", exact=True).click()
    page.wait_for_selector("#alike h3")
    rest(page)
    assert page.inner_text("#similar-title") == f"Similar to {title}"
    assert page.locator("#alike h3").all_text_contents() == ["all experts", "id", "aligned", "text"]
    for place, by in enumerate(["fused", "id", "aligned", "text"]):
        found = models["first"].similar_items([f"i{TITLES.index(title)}"], 5, by).titles[0].tolist()
        assert page.locator("#alike > div").nth(place).locator("li .title").all_text_contents() == found
    page.click("#close")
    assert page.is_hidden("#similar")
    assert "similar" not in page.url


def test_the_address_keeps_the_state(visit, models):
    page = visit()
    page.fill("#user", "u5")
    page.locator("#people li").first.click()
    page.select_option("#other", "second")
    page.focus("#diversity")
    page.keyboard.press("ArrowRight")
    page.select_option("#k", "25")
    rest(page)
    page.locator(".list > li").first.get_by_text("Similar").click()
    rest(page)
    fragment = "#" + page.url.partition("#")[2]
    again = visit(fragment)
    for one in (page, again):
        assert one.input_value("#user") == "u5"
        assert one.input_value("#other") == "second"
        assert one.inner_text("#diversity-value") == "0.05"
        assert one.is_checked("#hold")
    assert [listed(again, n) for n in (0, 1)] == [listed(page, n) for n in (0, 1)]
    assert again.inner_text("#similar-title") == page.inner_text("#similar-title")
    again.evaluate("location.hash = '#model=second&item=i2'")
    again.wait_for_selector("#events li:only-child")
    rest(again)
    assert listed(again) == expected(models, ["i2"], name="second")


def test_titles_are_text(visit):
    page = visit("#item=i10&similar=i10&k=25")
    assert page.locator("#events .title").all_text_contents() == [MARKUP]
    assert page.inner_text("#similar-title") == f"Similar to {MARKUP}"
    page.fill("#find", "img src")
    page.wait_for_selector("#found li")
    assert MARKUP in page.locator("#found li").first.inner_text()
    other = visit("#item=i1&k=25")
    assert MARKUP in listed(other)
    for one in (page, other):
        assert one.locator("main img, main b").count() == 0
        assert one.evaluate("window.hurt") is None


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(visit, width):
    page = visit("#user=u9&other=second&hold=1&similar=i10&k=25", width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.fill("#find", "a")
    time.sleep(0.3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    right = page.evaluate(
        "Math.max(...[...document.querySelectorAll('main *:not(.hidden)')].map(x => x.getBoundingClientRect().right))"
    )
    assert right <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names(visit, scheme):
    """WCAG 2 AA: 4.5 to 1 for text; every control has a name."""
    page = visit("#user=u9&other=second&hold=1&similar=i10&k=25")
    page.emulate_media(color_scheme=scheme)
    found = page.evaluate(PALE)
    assert found == []
    for control in page.locator("button, input, select").all():
        assert control.evaluate("x => x.ariaLabel || (x.labels && x.labels.length) || x.textContent.trim()")


def test_what_goes_wrong_is_said(browser, site, visit):
    page = browser.new_page()
    page.goto(site[0] + "#user=nobody")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "there is no history of user 'nobody'"
    page.wait_for_selector(".list > li")  # and the rest goes on
    page.route("**/recommend", lambda route: route.abort())
    page.fill("#find", "tea")
    page.locator("#found li").first.click()
    page.wait_for_selector("text=The service does not answer.")
    page.unroute("**/recommend")
    page.click("#reset")
    page.wait_for_selector("#error", state="hidden")
    page.close()
