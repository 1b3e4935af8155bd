"""Full ranking, metrics, scorers without learning, significance."""
