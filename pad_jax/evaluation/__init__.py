"""Full ranking, metrics, baselines, significance."""
