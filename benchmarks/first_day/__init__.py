"""Ten jobs of a first day with own tables, each written for this library, for RecTools and for implicit.

`ours.py`, `rectools_.py` and `implicit_.py` have the same ten functions and nothing beside them, so that no line hides
in a helper. Each uses what its library documents for the job; what that lacks is written by hand, as its user would
have to. `python -m benchmarks.first_day ours` (or `rectools`, `implicit`) does the jobs, checks what each gives by the
same assertion (`jobs.py`), and counts lines of code.
"""
