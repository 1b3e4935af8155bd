"""Item titles to vectors, once and offline, and the table they are kept in."""
