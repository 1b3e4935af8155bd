"""What a run leaves on disk: whose it is, its results, its ranks."""
