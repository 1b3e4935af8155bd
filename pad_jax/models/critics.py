"""What a loss learns about vectors without being part of the recommender."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Gaussian(nn.Module):
    """q(y|x) = N(mean(x), exp(log_variance(x))): two networks of one hidden layer of D/2; tanh bounds the second."""

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> tuple[Float[Array, "... D"], Float[Array, "... D"]]:
        width = x.shape[-1]

        def network(name: str):
            hidden = nn.relu(nn.Dense(max(width // 2, 1), name=f"{name}_hidden")(x))
            return nn.Dense(width, name=name)(hidden)

        return network("mean"), jnp.tanh(network("log_variance"))


class Bilinear(nn.Module):
    """h^T W z: does item part z belong to user state h?"""

    @nn.compact
    def __call__(self, state: Float[Array, "T D"], part: Float[Array, "T D"]) -> Float[Array, " T"]:
        return (nn.Dense(part.shape[-1], use_bias=False)(state) * part).sum(axis=-1)
