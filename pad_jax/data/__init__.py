"""Raw files to datasets: readers, filters, splits, and the cache of what was read."""
