"""A page of text, tables and pictures: once as Markdown with its pictures beside it, once as HTML in a single file."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pad_jax.files import write_atomically
from pad_jax.report.groups import RunGroup
from pad_jax.report.markdown import plain, row

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
p, ul { max-width: 48rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .9em;
  display: block; overflow-x: auto }
td, th { padding: .25em .6em; border-bottom: 1px solid #ccc; text-align: right; vertical-align: bottom }
td:first-child, th:first-child { text-align: left }
table.words td, table.words th { text-align: left; vertical-align: top }
@media (max-width: 45rem) { body { padding: 0 .25rem } table { font-size: .55em } td, th { padding: .25em .15em }
  th { overflow-wrap: anywhere } }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto }
img { max-width: 100% }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b } pre { background: #2a2a2a }
  img { background: white } }
"""


class Page:
    """Blocks in order; text may hold `code` and **bold**."""

    def __init__(self, title: str):
        self.title = title
        self._markdown = [f"# {plain(title)}"]
        self._html = [f"<h1>{html.escape(title)}</h1>"]
        self._pictures: dict[str, bytes] = {}
        self._attached: dict[str, bytes] = {}

    def heading(self, text: str) -> None:
        self._markdown.append(f"## {plain(text)}")
        self._html.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._markdown.append(plain(text))
        self._html.append(f"<p>{_inline(text)}</p>")

    def code(self, text: str) -> None:
        self._markdown.append(f"```bash\n{text}\n```")
        self._html.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> None:
        """Columns of numbers behind a first one of names; or of `words`, all of them to the left."""
        align = "---" if words else "---:"
        lines = [header, ["---", *[align] * (len(header) - 1)], *rows]
        self._markdown.append("\n".join(map(row, lines)))
        cells = [[_inline(cell) for cell in line] for line in (header, *rows)]
        head = "".join(f"<th>{cell}</th>" for cell in cells[0])
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[1:])
        self._html.append(f"<table{' class=words' if words else ''}><tr>{head}</tr>{body}</table>")

    def picture(self, name: str, figure: Any, caption: str) -> None:
        """A matplotlib figure, as SVG; `caption` also stands for it where it cannot be seen."""
        content = io.BytesIO()
        figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None})
        self._pictures[name] = content.getvalue()
        self._markdown.append(f"![{plain(caption)}]({name}.svg)\n\n{plain(caption)}")
        data = base64.b64encode(self._pictures[name]).decode()
        alt = html.escape(caption, quote=True)
        self._html.append(f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}"><p>{_inline(caption)}</p>')

    def attach(self, name: str, content: bytes, text: str) -> None:
        """A file of its own, which is written beside the page as PAGE-NAME, and `text` with a link to it behind."""
        self._attached[name] = content
        self._markdown.append(f"{plain(text)} {_link(name)[0]}")
        self._html.append(f"<p>{_inline(text)} {_link(name)[1]}</p>")

    def include(self, other: "Page", name: str) -> None:
        """Another page as a part of this one: its headings a level down, its pictures and what is attached to it with
        `name` before theirs."""
        prefix = re.sub(r"\W+", "_", name)
        for block in other._markdown:
            for picture in other._pictures:
                block = block.replace(f"]({picture}.svg)", f"]({prefix}-{picture}.svg)")
            block = _renamed(block, other._attached, prefix)
            self._markdown.append("#" + block if block.startswith("#") else block)
        html_blocks = [re.sub(r"^<h(\d)>(.*)</h\d>$", _lower, block) for block in other._html]
        self._html += [_renamed(block, other._attached, prefix) for block in html_blocks]
        self._pictures |= {f"{prefix}-{picture}": content for picture, content in other._pictures.items()}
        self._attached |= {f"{prefix}-{attached}": content for attached, content in other._attached.items()}

    def write(self, directory: Path, name: str) -> Path:
        """NAME.md with NAME-PICTURE.svg, NAME.html, and what is attached to both; returns the second."""
        markdown = "\n\n".join(self._markdown) + "\n"
        for picture, content in self._pictures.items():
            write_atomically(directory / f"{name}-{picture}.svg", content)
            markdown = markdown.replace(f"]({picture}.svg)", f"]({name}-{picture}.svg)")
        for attached, content in self._attached.items():
            write_atomically(directory / f"{name}-{attached}", content)
        markdown = _renamed(markdown, self._attached, name)
        write_atomically(directory / f"{name}.md", markdown.encode())
        body = _renamed("\n".join(self._html), self._attached, name)
        page = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n{body}\n'
            "</body></html>\n"
        )
        write_atomically(directory / f"{name}.html", page.encode())
        return directory / f"{name}.html"


def add_curves(page: Page, groups: Mapping[str, RunGroup]) -> None:
    """The learning curves of every phase of some runs."""
    from pad_jax.report import plots  # slow to import

    page.heading("Learning curves")
    drawn = plots.learning_curves({name: group.curves("nDCG@10") for name, group in groups.items()}, "valid nDCG@10, %")
    caption = (
        "nDCG@10 on the validation split after every epoch, one phase behind the other, a line for each seed; the "
    )
    page.picture("curves", drawn, caption + "mark is the best epoch.")


def _lower(heading: re.Match[str]) -> str:
    level = int(heading[1]) + 1
    return f"<h{level}>{heading[2]}</h{level}>"


def add_trade_off(
    page: Page, methods: Mapping[str, Sequence[Mapping[str, Any]]], baselines: Mapping[str, Mapping[str, Any]]
) -> None:
    """Warm against cold items as the popularity dial turns; nothing where no results have the curve, or no users both.

    `methods` are metrics of a split for each seed, `baselines` of their one run.
    """
    from pad_jax.report import plots  # slow to import

    tests = [*(seeds[0] for seeds in methods.values()), *baselines.values()]
    users = {group: tests[0]["by_frequency"][group]["users"] for group in ("warm", "cold", "unseen")}
    colder = {"cold": ("cold",), "cold and unseen": ("cold", "unseen")}
    if not users["unseen"]:
        colder.pop("cold and unseen")
    panels = {}
    for title, groups in colder.items():
        if users["warm"] and all(users[group] for group in groups):
            sizes = [users[group] for group in groups]
            lines = {name: _line(seeds, groups, sizes) for name, seeds in methods.items()}
            lines |= {name: _line([test], groups, sizes) for name, test in baselines.items()}
            panels[title] = {name: line for name, line in lines.items() if line is not None}
    if not any(panels.values()):
        return
    page.heading("Warm against cold items")
    page.text(
        "nDCG@10 on users whose target is warm against that on users of colder ones, as each panel says (median ones "
        "are in none), while beta of score + beta * log(1 + training count) goes through a grid in units of each "
        "scorer: a small dot for each beta, a large mark where it is 0; towards the right it rises. A line above "
        "another is better whatever beta is chosen. A mean over seeds; baselines are dashed."
    )
    drawn = plots.trade_off(panels, set(baselines))
    page.picture("popularity", drawn, "nDCG@10 of warm items against colder ones, over the popularity dial.")


def _line(
    tests: Sequence[Mapping[str, Any]], groups: Sequence[str], users: Sequence[int]
) -> tuple[np.ndarray, int] | None:
    """(nDCG@10 of warm items and of users of `groups` together, in percent [G, 2], the place of beta 0); None where
    results have no curve, or seeds have other grids."""
    curves = [test.get("by_popularity", ()) for test in tests]
    if not curves[0] or len({len(curve) for curve in curves}) > 1:
        return None
    parts = [[[p["by_frequency"][g]["nDCG@10"] for g in ("warm", *groups)] for p in curve] for curve in curves]
    mean = 100 * np.mean(parts, axis=0)
    other = np.average(mean[:, 1:], axis=1, weights=users)
    return np.stack([mean[:, 0], other], axis=1), [point["beta"] for point in curves[0]].index(0)


def _link(name: str) -> tuple[str, str]:
    """To a file beside the page, in Markdown and HTML."""
    return f"[{name}]({name})", f'<a href="{html.escape(name)}">{html.escape(name)}</a>'


def _renamed(text: str, attached: Iterable[str], prefix: str) -> str:
    """With links to PREFIX-NAME in place of those to NAME."""
    for name in attached:
        for old, new in zip(_link(name), _link(f"{prefix}-{name}"), strict=True):
            text = text.replace(old, new)
    return text


def _inline(text: str) -> str:
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)
