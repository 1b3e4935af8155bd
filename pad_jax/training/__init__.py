"""The step, the loop around it, devices, checkpoints."""
