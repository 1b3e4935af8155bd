"""DisCo: four parts, and the losses on them."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.methods.base import forward
from pad_jax.methods.disco import disentanglement, sufficiency


def test_disco_has_two_embeddings_of_every_item(setup):
    """Part 1 is of the first half of its ID rows, part 2 of the second, parts 3 and 4 are of the text alone."""
    s = setup("disco")
    phase = s.method.phases[0]
    _, state = s.state(phase)

    def sums(table):
        params = {**state.params, "tables": {"disco": table}}
        parts = s.scorer(phase).item_vectors(params, jnp.arange(1, 4), s.data)["disco"].parts
        return jnp.stack([part.sum() for part in parts])

    gradients = jax.jit(jax.jacrev(sums))(state.params["tables"]["disco"])

    def reads(number):
        moved = np.asarray(gradients[number][1:4]) != 0
        return moved[:, :16].all(), moved[:, :16].any(), moved[:, 16:].all(), moved[:, 16:].any()

    own, common, neither = (True, True, False, False), (False, False, True, True), (False,) * 4
    assert [reads(n) for n in range(4)] == [own, common, neither, neither]


def test_disco_losses_against_numpy(setup, dataset):
    """CLUB over groups of users and the discriminators over positions, by loops."""
    s = setup("disco")
    phase = s.method.phases[0]
    _, state = s.state(phase)
    assert state.params["tables"]["disco"].shape == (31, 32)
    batch, _ = s.batch()
    scorer, params = s.scorer(phase), state.params

    @jax.jit
    def ours(params, batch, data):
        seen = forward(scorer, s.config, params, batch, data, None)
        parts = scorer.item_vectors(params, jnp.arange(31), data)["disco"].parts
        critics = params["critics"]
        losses = *disentanglement(batch, critics, seen), sufficiency(s.config, batch, critics, seen)
        return seen.users["disco"], parts, [loss.value for loss in losses]

    users, parts, (information, nats, told_apart) = ours(params, batch, s.data)
    parts = [np.asarray(part) for part in parts]
    assert len(parts) == 4

    def dense(layer, x):
        return x @ np.asarray(layer["kernel"]) + np.asarray(layer.get("bias", 0))

    def moments(q, x):
        mean, log_variance = (dense(q[n], np.maximum(dense(q[f"{n}_hidden"], x), 0)) for n in ("mean", "log_variance"))
        return mean, np.tanh(log_variance)

    bounds, likelihoods = [], []
    for group in np.asarray(s.data.windows)[:16].reshape(4, -1):
        items, bound, likelihood = group[group > 0], 0.0, 0.0
        for number, (x, y) in enumerate(((0, 3), (1, 2))):
            mean, log_variance = moments(params["critics"][f"gaussian_{number}"], parts[x][items])
            y = parts[y][items]
            every = (y[None] - mean[:, None]) ** 2
            own = (y - mean) ** 2
            bound += ((every.mean(axis=1) - own) / (2 * np.exp(log_variance))).sum(axis=1).mean()
            likelihood += (own / (2 * np.exp(log_variance)) + log_variance / 2).sum(axis=1).mean()
        bounds.append(bound)
        likelihoods.append(likelihood)
    np.testing.assert_allclose(information, np.mean(bounds), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(nats, np.mean(likelihoods), rtol=1e-4)

    valid = np.asarray(batch.valid)
    state_of, target, drawn = (np.asarray(x)[valid] for x in (users, batch.targets, batch.negatives))
    total = 0.0
    for number, part in enumerate(parts):
        weights = np.asarray(params["critics"][f"bilinear_{number}"]["Dense_0"]["kernel"])
        positive, negative = (np.einsum("td,de,te->t", state_of, weights, part[i]) for i in (target, drawn))
        total += (np.logaddexp(0, -positive) + np.logaddexp(0, negative)).mean() / 4
    np.testing.assert_allclose(told_apart, total, rtol=1e-4)


def test_disco_fits_its_critics_and_its_parts_apart(setup):
    """CLUB does not move q, the likelihood does not move the parts."""
    s = setup("disco")
    phase = s.method.phases[0]
    _, state = s.state(phase)
    batch, _ = s.batch()

    @jax.jit
    def gradients(params):
        def losses(params):
            seen = forward(s.scorer(phase), s.config, params, batch, s.data, None)
            return tuple(loss.value for loss in disentanglement(batch, params["critics"], seen))

        _, pullback = jax.vjp(losses, params)
        return [pullback(which)[0] for which in ((1.0, 0.0), (0.0, 1.0))]

    information, likelihood = gradients(state.params)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(information["critics"]))
    assert np.asarray(information["tables"]["disco"]).any()
    assert not np.asarray(likelihood["tables"]["disco"]).any()
    assert all(np.asarray(likelihood["critics"][f"gaussian_{n}"]["mean"]["kernel"]).any() for n in (0, 1))
