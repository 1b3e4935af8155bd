"""Titles per second of the text encoder: each distinct title once, in order of length, beside file order.

Both run the same encoder in PyTorch; the peer takes the titles as they stand, a batch at a time, padded to the longest.
The titles are Prime Pantry's.
"""

import statistics

import numpy as np
import torch
import transformers

from benchmarks.harness import Report, arguments, in_turn, ratio, run
from benchmarks.problem import configuration, pantry
from pad_jax.text import encode as text
from pad_jax.text.settings import TextSettings


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--titles", type=int, default=2048)
    options = parser.parse_args()
    config = TextSettings()
    titles = list(pantry(configuration()).titles)[: options.titles]
    source = text._source(config.encoder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32).to(device)

    @torch.inference_mode()
    def peer() -> np.ndarray:
        rows = []
        for begin in range(0, len(titles), config.batch):
            batch = tokenizer(titles[begin : begin + config.batch], padding=True, truncation=True, return_tensors="pt")
            batch = batch.to(device)
            states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
            mean = (states * mask).sum(1) / mask.sum(1)
            rows.append(torch.nn.functional.normalize(mean, dim=1).cpu())
        return torch.cat(rows).numpy()

    def ours() -> np.ndarray:
        return text.encode(titles, config)[0]

    difference = float(np.abs(ours() - peer()).max())
    if difference > 1e-5:
        raise AssertionError(f"the vectors of ours and the peer differ by {difference}")
    columns = ("titles", "ours_per_s", "peer_per_s", "ratio", "ratio_min", "ratio_max", "difference")
    with Report("encode", columns) as report:
        seconds = in_turn({"ours": ours, "peer": peer}, options.rounds, warm_up=0)
        rates = {f"{name}_per_s": len(titles) / statistics.median(s) for name, s in seconds.items()}
        report.add(titles=len(titles), **rates, **ratio(seconds["peer"], seconds["ours"]), difference=difference)


if __name__ == "__main__":
    run(main)
