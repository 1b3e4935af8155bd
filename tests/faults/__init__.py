"""Faults on purpose: what is damaged, interrupted or nonsense, and what the program makes of it.

Each module has `case(shop, number, seed)`, which gives {"wrong", ..}: what was not fine, or "". What is fine stands in
its docstring. `python -m tests.faults` does many of them.
"""
