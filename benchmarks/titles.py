"""Encoding a million titles through a tiny random encoder: the memory that encoding itself needs.

The encoder is a BERT of width 64 with one layer, so that what is measured is the reading, tokens, order and writing of
a large catalogue. The table goes to a temporary folder; time and peak of memory are of a process of its own.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.harness import Report, arguments, in_own_process, peak_mib, run
from pad_jax.data.dataset import Dataset, leave_one_out
from pad_jax.text.encode import encode_table
from pad_jax.text.settings import TextSettings

WORDS = ("cable", "usb", "black", "charger", "case", "for", "wireless", "pack", "hd", "camera", "coffee", "tea")


def make_encoder(folder: Path) -> None:
    """A BERT with random weights, as a local directory."""
    numbers = [str(n) for n in range(1000)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *numbers]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128
    )
    transformers.BertModel(settings).save_pretrained(folder)


def encode(folder: Path, count: int) -> None:
    """Encodes `count` different titles and prints what it took."""
    random = np.random.default_rng(0)
    titles = []
    for begin in range(0, count, 10_000):
        for n, words in enumerate(random.integers(len(WORDS), size=(min(10_000, count - begin), 8)), begin):
            title = " ".join(WORDS[w] for w in words[: 3 + n % 6])
            titles.append(f"{title} {n // 1_000_000} {n // 1000 % 1000} {n % 1000}")
    starts = np.array([0, 3])
    ids = [f"B{n:09d}" for n in range(count)]
    dataset = Dataset("titles", ids, titles, ["u"], np.ones(3, np.int32), starts, leave_one_out(starts))
    before, started = peak_mib(), time.perf_counter()
    path = folder / "table.safetensors"
    encode_table(path, dataset, TextSettings(encoder=str(folder), keep_in="float16", batch=512))
    seconds = time.perf_counter() - started
    figures = {"before_mib": before, "peak_mib": peak_mib(), "table_mib": path.stat().st_size / 2**20}
    print(json.dumps(figures | {"seconds": seconds, "titles_per_s": count / seconds}))


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--titles", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--case", type=json.loads, help="encode in this folder and print figures (internal)")
    options = parser.parse_args()
    if options.case:
        encode(Path(options.case["folder"]), options.case["titles"])
        return
    columns = ("titles", "seconds", "titles_per_s", "before_mib", "peak_mib", "table_mib")
    with Report("titles", columns) as report, tempfile.TemporaryDirectory() as folder:
        make_encoder(Path(folder))
        case = {"folder": folder, "titles": options.titles}
        report.add(titles=options.titles, **in_own_process("benchmarks.titles", case, options.rounds))


if __name__ == "__main__":
    run(main)
