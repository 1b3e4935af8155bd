"""Speed and memory beside a PyTorch peer, run by hand: python -m benchmarks.NAME.

NAME is phases, mmd, ranking, encode, prepare, memory or growth. The peers are written for this comparison in the most
direct good style: the same mathematics, vectorised, tensors resident, left-padded rows, every occurrence of an item
through its tower. (Two are not: `sorting` in ranking and the reader in prepare go from user to user, as released code
does.) Ours and the peer take turns within one call; what is reported is the median of the ratios of neighbours,
peer / ours. On GPUs both take float32 products in float32, not in TF32.
"""
