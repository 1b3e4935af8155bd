"""MIND, news clicks, in either of two forms (pad_jax/data/mind.py tells them apart by their files):

    the tables of the paper      *users*.tsv (user, tab, item ids) and *items*.tsv (item id, tab, title)
    the release, small or large  behaviors.tsv and news.tsv, or MINDsmall_train.zip, MINDsmall_dev.zip, ...

They are looked for in --config.data.path, $PAD_JAX_DATA/mind or data/mind.

    python main.py --config=configs/mind.py:prepare   counts, beside the known ones of the paper's tables
    python main.py --config=configs/mind.py
    python main.py --config=configs/mind.py:align     one phase

Results of the release are not comparable with the paper's. To expect with the paper's tables, its recipe and LLM2Vec
text: HR@10 18.67 %, nDCG@10 10.15 % (as the paper reports; not yet run here).
"""

from pad_jax.config import config_dict


def get_config(job: str = "all"):
    return config_dict("mind", job)
