"""Whether a causal language model was read rightly: its perplexity of titles, beside a unigram model of the same.

The unigram model is fitted to the very tokens that it is asked for, which no other can do better; a model whose
weights, norms, positions or merges were read wrongly loses to it. The first token of a title is predicted from what the
tokenizer puts before it. `unlike` counts titles that are not what their tokens spell. The titles are Prime Pantry's,
evenly spaced, or the demo's: few words put together by a rule, at which the unigram model is better.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import transformers

from benchmarks.harness import Report, arguments, run
from benchmarks.problem import configuration, pantry
from pad_jax.data import demo
from pad_jax.text.encode import _source


@torch.inference_mode()
def nats(model, tokenizer, titles: Sequence[str]) -> tuple[float, float, int]:
    """(mean surprise of a token to the model, to the unigram model, tokens); the first of a title is given."""
    surprise, met = 0.0, []
    for title in titles:
        ids = torch.tensor([tokenizer(title)["input_ids"]])
        logs = model(input_ids=ids).logits[0, :-1].float().log_softmax(dim=-1)
        surprise -= logs.gather(1, ids[0, 1:, None]).sum().item()
        met += ids[0, 1:].tolist()
    share = np.unique(met, return_counts=True)[1] / len(met)
    return surprise / len(met), float(-(share * np.log(share)).sum()), len(met)


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--encoder", default="gemma-3-270m", help="(default %(default)s)")
    parser.add_argument("--titles", type=int, default=500, help="(default %(default)s)")
    parser.add_argument("--demo", action="store_true", help="the demo's titles")
    options = parser.parse_args()
    config = configuration()
    titles = (demo.load if options.demo else pantry)(config).titles
    titles = [titles[n] for n in np.linspace(0, len(titles) - 1, min(options.titles, len(titles))).astype(int)]
    source = _source(options.encoder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
    columns = ("titles", "tokens", "perplexity", "unigram", "ratio", "unlike")
    with Report("perplexity", columns) as report:
        ours, unigram, tokens = nats(model, tokenizer, titles)
        unlike = sum(tokenizer.decode(tokenizer(t)["input_ids"], skip_special_tokens=True) != t for t in titles)
        found = {"perplexity": math.exp(ours), "unigram": math.exp(unigram), "ratio": math.exp(unigram - ours)}
        report.add(titles=len(titles), tokens=tokens, **found, unlike=unlike)


if __name__ == "__main__":
    run(main)
