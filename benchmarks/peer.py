"""The PyTorch peer: PAD's three phases over left-padded rows, in eager PyTorch.

Parameters are a dictionary of leaf tensors under the names that `pad_jax` gives them, so that the same weights can be
handed to both and the gradients of both compared. SASRec with pre- or post-norm, text MLP, CAT, `bucket_emb` gate, BCE
with one negative, as recipe `paper` has them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pad_jax.settings import Config


class Peer:
    """Everything that depends on the configuration alone; `train` turns dropout on."""

    def __init__(self, config: Config, experts: tuple[str, ...], params: dict[str, Tensor], text, bucket):
        self.config, self.experts, self.p = config, experts, params
        self.text, self.bucket = text, bucket
        self.train = True

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.p[f"{name}/kernel"]
        return y + self.p[f"{name}/bias"] if f"{name}/bias" in self.p else y

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.model.dropout, self.train)

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.p[f"{name}/scale"], self.p[f"{name}/bias"], 1e-6)

    def sasrec(self, x: Tensor, filled: Tensor, at: str) -> Tensor:
        """x [B, L, D], filled [B, L]."""
        s, share = self.config.sasrec, self.config.model.dropout
        pre = s.norm == "pre"
        rows, length, width = x.shape
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=x.device)  # an empty slot sees itself: no row of NaN
        seen = (causal & filled[:, None, :] | own)[:, None]
        x = x + self.p[f"{at}/positions"]
        x = self.drop(x if pre else self.norm(x, f"{at}/norm_input"))
        for block in range(s.blocks):
            name = f"{at}/block_{block}"
            y = self.norm(x, f"{name}_norm_attention") if pre else x
            q, k, v = (self.linear(y, f"{name}_{n}").view(rows, length, s.heads, -1).transpose(1, 2) for n in "qkv")
            y = F.scaled_dot_product_attention(q, k, v, seen, share if self.train else 0.0)
            y = self.drop(self.linear(y.transpose(1, 2).reshape(rows, length, width), f"{name}_o"))
            x = x + y if pre else self.norm(x + y, f"{name}_norm_attention")
            y = self.norm(x, f"{name}_norm_ffn") if pre else x
            y = self.drop(self.linear(F.relu(self.linear(y, f"{name}_ffn_in")), f"{name}_ffn_out"))
            x = x + y if pre else self.norm(x + y, f"{name}_norm_ffn")
        return self.norm(x, f"{at}/norm_output") if pre else x

    def items(self, ids: Tensor) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Expert -> (vectors, text part before CAT) of items `ids` of any shape, every occurrence on its own."""
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        text = None
        for expert in self.experts:
            if expert == "id":
                found[expert] = (F.embedding(ids, self.p["tables/id"]), None)
                continue
            text = F.embedding(ids, self.text).float() if text is None else text
            part = F.gelu(self.linear(text, f"towers/{expert}/text/Dense_0"))
            for layer in range(self.config.model.text_layers):
                part = F.gelu(self.linear(self.drop(part), f"towers/{expert}/text/Dense_{layer + 1}"))
            if expert == "text":
                found[expert] = (part, None)
            else:
                rows = F.embedding(ids, self.p["tables/aligned"])
                both = self.drop(torch.cat([rows, part], dim=-1))
                found[expert] = (F.gelu(self.linear(both, "towers/aligned/cat/Dense_0")), part)
        return found

    def gates(self, ids: Tensor, items: dict[str, tuple[Tensor, Tensor | None]]) -> Tensor:
        """[..., K]."""
        bucket = self.bucket[ids]
        logits = []
        for expert in self.experts:
            x = torch.cat([self.p[f"gate/{expert}_embedding"][bucket], items[expert][0]], dim=-1)
            hidden = F.gelu(self.linear(x, f"gate/{expert}_hidden"))
            logits.append(self.p[f"gate/{expert}_bucket"][bucket] + self.linear(hidden, f"gate/{expert}_logit")[..., 0])
        weights = torch.sigmoid(torch.stack(logits, dim=-1))
        return weights / weights.sum(dim=-1, keepdim=True)

    def users(self, vectors: dict[str, Tensor], filled: Tensor) -> dict[str, Tensor]:
        return {e: self.sasrec(vectors[e], filled, f"encoders/{e}/backbone") for e in self.experts}

    def loss(self, windows: Tensor, negatives: Tensor, align: bool = False) -> Tensor:
        """windows [B, L + 1], negatives [B, L]; BCE over the filled slots, and the MMD of phase 2 with `align`."""
        filled, width = windows[:, :-1] > 0, windows.shape[1]
        ids = torch.cat([windows, negatives], dim=1)
        items = self.items(ids)
        users = self.users({e: v[:, : width - 1] for e, (v, _) in items.items()}, filled)
        gates = self.gates(ids, items) if len(self.experts) > 1 else None
        logit = 0
        for k, expert in enumerate(self.experts):
            other = items[expert][0][:, 1:]  # targets, then negatives
            user = users[expert].repeat(1, 2, 1)
            score = (user * other).sum(-1)
            logit = logit + (score if gates is None else score * gates[:, 1:, k])
        positive, negative = logit.split(width - 1, dim=1)
        loss = (F.softplus(-positive) + F.softplus(negative))[filled].mean()
        if align:
            part = items["aligned"][1]
            rows = F.embedding(ids, self.p["tables/aligned"])
            mask = torch.cat([windows > 0, filled], dim=1)
            group = self.config.mmd.group
            flat = [x.reshape(-1, group * ids.shape[1], *x.shape[2:]) for x in (part, rows, mask)]
            loss = loss + self.config.mmd.weight * mmd(*flat, self.config.mmd.scales).mean()
        return loss

    @torch.no_grad()
    def catalogue(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Gated item vectors [N + 1, K D], and every expert's own."""
        ids = torch.arange(len(self.bucket), device=self.bucket.device)
        items = self.items(ids)
        vectors = {e: v for e, (v, _) in items.items()}
        if len(self.experts) == 1:
            return vectors[self.experts[0]], vectors
        gates = self.gates(ids, items)
        return torch.cat([gates[:, [k]] * vectors[e] for k, e in enumerate(self.experts)], dim=1), vectors

    @torch.no_grad()
    def states(self, inputs: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        """User vectors [B, K D] after the newest event of inputs [B, L]."""
        users = self.users({e: v[inputs] for e, v in vectors.items()}, inputs > 0)
        return torch.cat([users[e][:, -1] for e in self.experts], dim=1)


def mmd(source: Tensor, target: Tensor, mask: Tensor | None, scales: tuple[int, ...]) -> Tensor:
    """MK-MMD [G] of source and target [G, n, D] from one Gram matrix [G, 2n, 2n], a kernel matrix per scale."""
    groups, n, _ = source.shape
    valid = source.new_ones(groups, n) if mask is None else mask.to(source.dtype)
    both = torch.cat([source, target], dim=1)
    weight = torch.cat([valid, valid], dim=1)
    square = (both * both).sum(-1)
    distance = (square[:, :, None] + square[:, None] - 2 * both @ both.transpose(1, 2)).clamp(min=0)
    count = valid.sum(1)
    pairs = weight[:, :, None] * weight[:, None]
    mean = ((distance * pairs).sum((1, 2)) / (2 * count) ** 2).detach()[:, None, None]
    kernel = sum(torch.exp(-distance / (2 * 2.0**scale * mean)) for scale in scales) * pairs
    within = kernel[:, :n, :n] + kernel[:, n:, n:]
    off_diagonal = within.sum((1, 2)) - within.diagonal(dim1=1, dim2=2).sum(1)
    cross = kernel[:, :n, n:].sum((1, 2))
    return off_diagonal / (count * (count - 1)) - 2 * cross / count**2 + 2 / (count - 1)


def mask_history(scores: Tensor, history: Tensor) -> Tensor:
    """Scores [B, N + 1] with -inf at the items of history [B, H], 0 in it and in column 0 being padding; in place."""
    scores.scatter_(1, history, -torch.inf)
    scores[:, 0] = -torch.inf
    return scores


def ranks_by_comparison(scores: Tensor, target: Tensor, history: Tensor) -> Tensor:
    """Ranks [B] of targets that are not in the history; ties share their mean."""
    own = scores.gather(1, target[:, None])
    scores = mask_history(scores, history)
    return 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def draw_negatives(gaps: Tensor, items: int, length: int) -> Tensor:
    """[B, L] items outside the prefix whose gaps (`pad_jax.batching.device.gaps_of`) are `gaps` [B, W]."""
    outside = items - (gaps < items).sum(1, keepdim=True)
    rank = (torch.rand(len(gaps), length, device=gaps.device) * outside).long()
    return 1 + rank + (gaps[:, None] <= rank[:, :, None]).sum(-1)
