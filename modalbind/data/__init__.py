"""Pairs: lists of them, their samples, their splits, and the batches made of them.

Importing this imports nothing: the modules below say what each does.
"""
