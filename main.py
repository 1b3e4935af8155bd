"""PAD: pre-train, align and disentangle a sequential recommender.

python main.py                                         the demo, from titles to a table
python main.py --config=configs/pantry.py              every phase of PAD on Amazon Prime Pantry
python main.py --config=configs/pantry.py:pretrain     one job of it
python main.py --config.method=sasrec                  another method; any field of pad_jax/config.py likewise
"""

import sys

from pad_jax.__main__ import command

if __name__ == "__main__":
    sys.exit(command())
