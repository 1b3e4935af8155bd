"""What people see: progress, tables, and comparisons of finished runs."""
