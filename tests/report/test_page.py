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
