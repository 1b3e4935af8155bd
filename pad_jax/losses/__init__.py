"""Loss functions: one per equation, pure."""
