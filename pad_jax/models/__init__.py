"""Backbones, item towers, the gate, and the scorer that fuses experts."""
