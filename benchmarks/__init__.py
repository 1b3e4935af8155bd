"""Speed and memory beside a PyTorch peer, run by hand: python -m benchmarks.NAME.

NAME is phases, mmd, ranking, encode, prepare, memory or growth. The peers are written for this comparison in the most
direct good style: the same mathematics, vectorised, tensors resident, no Python per sample, left-padded rows. Ours and
the peer take turns within one call; what is reported is the median of the ratios of neighbours, peer / ours.
"""
