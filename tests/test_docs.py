"""What the docs say of the code, held to the code."""

import importlib
import inspect
import re

from tests.support.data import ROOT

DOCS = ROOT / "docs"
SOURCE = {path: path.read_text() for path in sorted((ROOT / "pad_jax").rglob("*.py"))}


def find(name):
    """What a dotted name names."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def test_every_function_of_the_paper_cites_its_equation():
    rows = re.findall(r"^\| ((?:Eq|Section|Algorithm)[^|]*)\|[^|]*\| (.*) \|$", (DOCS / "paper.md").read_text(), re.M)
    assert len(rows) > 10
    for reference, functions in rows:
        names = re.findall(r"`(pad_jax[\w.]+)`", functions)
        assert names
        kind, numbers = reference.split()[0], re.findall(r"\d+(?:\.\d+)?", reference)
        if "-" in reference:
            numbers = [str(n) for n in range(int(numbers[0]), int(numbers[1]) + 1)]
        text = " ".join(
            " ".join((inspect.getdoc(find(n)) or "", inspect.getdoc(inspect.getmodule(find(n))))) for n in names
        )
        for number in numbers:
            if kind.startswith("Eq"):
                assert cites(text, int(number)), f"{names} do not cite Eq. ({number})"
            else:
                assert re.search(rf"{kind}\w* {re.escape(number)}", text, re.I), f"{names} do not cite {reference}"


def cites(text, number):
    """Whether a text names an equation, alone, in a list or in a range."""
    for found in re.findall(r"Eq\.\s*\(?([\d,\s()andto-]+)", text):
        for part in re.split(r",|and", found):
            digits = [int(n) for n in re.findall(r"\d+", part)]
            if digits and digits[0] <= number <= digits[-1]:
                return True
    return False


def test_every_name_in_the_docs_exists():
    for path in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(r"(?<![\w/])(pad_jax(?:\.\w+)+)", path.read_text()):
            if not name.endswith((".py", ".toml")):
                find(name)
        for file in re.findall(r"`((?:pad_jax|docs|configs|tests|benchmarks)/[\w/.]+)`", path.read_text()):
            if not file.startswith("configs/shop") and not file.startswith("configs/my_"):
                assert (ROOT / file).exists(), f"{path.name}: {file}"


def test_the_examples_have_as_many_lines_as_the_page_says():
    rows = re.findall(r"`(my_\w+\.py)` \| (\d+) \|", (DOCS / "extend.md").read_text())
    assert {name for name, _ in rows} == {path.name for path in (DOCS / "examples").glob("*.py")}
    shown = re.findall(r'^--8<-- "docs/examples/(\w+\.py)"$', (DOCS / "extend.md").read_text(), re.M)
    assert sorted(shown) == sorted(name for name, _ in rows)
    for name, count in rows:
        assert len((DOCS / "examples" / name).read_text().splitlines()) == int(count), name


def test_the_example_of_the_readme_is_that_of_the_docs():
    code = re.search(r"```python\n# configs/my_method.py\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    assert code in (DOCS / "examples" / "my_method.py").read_text()
    shop = [
        re.search(r"```python\n# configs/shop.py\n(.*?)```", p.read_text(), re.S).group(1)
        for p in (ROOT / "README.md", DOCS / "data.md")
    ]
    assert shop[0] == shop[1]


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_one_file_asks_for_devices_and_processes():
    words = r"jax\.((local_)?devices?(_count)?|process_(index|count)|default_backend|distributed)\b"
    asking = [str(path) for path, text in SOURCE.items() if re.search(words, text)]
    assert [path.rpartition("pad_jax/")[2] for path in asking] == ["parallel.py"]


#: Their parameters are those of every loss (`LossFunction`), or say it all by name and type.
OBVIOUS = {"fused_loss", "expert_loss", "lists", "curves"}
OF_EVERY_LOSS = ["scorer", "config", "params", "batch", "data", "key"]


def test_long_lists_of_parameters_are_explained():
    for path in SOURCE:
        if path.name == "__main__.py":
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        for name, function in vars(module).items():
            own = inspect.isfunction(function) and function.__module__ == module.__name__
            if not own or name.startswith("_") or name in OBVIOUS:
                continue
            names = list(inspect.signature(function).parameters)
            if len(names) >= 5 and names[:6] != OF_EVERY_LOSS:
                assert "Args:" in inspect.getdoc(function), f"{path}: {name}"
