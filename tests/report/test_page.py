"""A report in both of its forms."""

import re

import numpy as np

from pad_jax.report.page import Page, add_trade_off


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


def test_a_page_in_a_page(tmp_path):
    """Its headings a level down, and pictures of the same name stay two."""
    from pad_jax.report import plots

    page = Page("Both")
    for name, value in (("a shop", 1.0), ("b", 2.0)):
        part = Page(f"On {name}")
        part.heading("Bars")
        part.code("# make")
        part.picture("bars", plots.grouped_bars(["x"], {"one": [value]}, "y"), "Bars.")
        page.include(part, name)
    page.write(tmp_path, "page")
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert [line for line in lines if line.startswith(("#", "!["))] == [
        "# Both",
        *("## On a shop", "### Bars", "# make", "![Bars.](page-a_shop-bars.svg)"),
        *("## On b", "### Bars", "# make", "![Bars.](page-b-bars.svg)"),
    ]
    assert (tmp_path / "page-a_shop-bars.svg").read_bytes() != (tmp_path / "page-b-bars.svg").read_bytes()
    html = (tmp_path / "page.html").read_text()
    assert html.count("<h1>") == 1
    assert html.count("<h2>On ") == html.count("<h3>Bars") == 2


def test_what_is_attached_is_a_file_that_is_linked(tmp_path):
    """Also of a page in a page, and of two that call it alike."""
    page = Page("Both")
    for name in ("a", "b"):
        part = Page(name)
        part.attach("users.html", name.encode(), "Users:")
        page.include(part, name)
    page.write(tmp_path, "page")
    for form in ("md", "html"):
        links = re.findall(r"\(([\w.-]+html)\)|href=\"([^\"]+)\"", (tmp_path / f"page.{form}").read_text())
        assert ["".join(link) for link in links] == ["page-a-users.html", "page-b-users.html"]
    assert [(tmp_path / f"page-{name}-users.html").read_bytes() for name in ("a", "b")] == [b"a", b"b"]


def test_warm_against_cold(tmp_path, monkeypatch):
    """Means over seeds; cold and unseen users together by their numbers; results without a curve have no line."""
    from pad_jax.report import plots

    def test(warm, cold, unseen, users=(5, 1, 2)):
        groups = dict(zip(("warm", "cold", "unseen"), users, strict=True))
        points = [
            {"beta": b, "by_frequency": {g: {"nDCG@10": v and v + b / 10} for g, v in zip(groups, of, strict=True)}}
            for b, of in ((-1.0, (warm, cold, unseen)), (0.0, (warm, cold, unseen)))
        ]
        return {"by_frequency": {g: {"users": n} for g, n in groups.items()}, "by_popularity": points}

    drawn = []
    monkeypatch.setattr(plots, "trade_off", lambda *x, made=plots.trade_off: drawn.append(x) or made(*x))
    methods = {"mine": [test(0.5, 0.2, 0.4), test(0.7, 0.2, 0.4)], "old": [{"by_frequency": {}}]}
    page = Page("Curves")
    add_trade_off(page, methods, {"counts": test(0.3, 0.1, 0.2)})
    written = page.write(tmp_path, "curves").read_text()
    assert "Warm against cold items" in written
    assert re.search(r"nDCG@10 of cold and unseen items", (tmp_path / "curves-popularity.svg").read_text())
    ((panels, dashed),) = drawn
    assert list(panels) == ["cold", "cold and unseen"]
    assert dashed == {"counts"}
    assert list(panels["cold"]) == ["mine", "counts"]
    points, zero = panels["cold and unseen"]["mine"]
    np.testing.assert_allclose(points, [[50, (10 + 2 * 30) / 3], [60, (20 + 2 * 40) / 3]])
    assert zero == 1
    for users, panel in (((5, 1, 0), ["cold"]), ((0, 1, 1), None), ((5, 0, 3), None)):
        drawn.clear()
        page = Page("Curves")
        add_trade_off(page, {"mine": [test(0.5 if users[0] else None, 0.2, 0.2 if users[2] else None, users)]}, {})
        assert [list(of[0]) for of in drawn] == ([panel] if panel else [])
