"""A report in both of its forms."""

from pad_jax.report.page import Page


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
