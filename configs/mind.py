"""MIND: news clicks with titles. Its jobs are in place; its files cannot be read yet.

python main.py --config=configs/mind.py:pretrain
python main.py --config=configs/mind.py:align
python main.py --config=configs/mind.py:finetune
"""

from pad_jax.config import config_dict


def get_config(job: str = "all"):
    return config_dict("mind", job)
