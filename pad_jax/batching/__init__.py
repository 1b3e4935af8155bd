"""From a dataset to the batches of a step: order, layout without padding, negatives."""
