"""What modalities on a pixel grid share: depth, heat, and other measured maps.

A map is one channel of numbers with a unit, and a mask of where it was measured. Its plugin says
what the numbers mean; nothing here knows a unit. Importing this imports nothing: the modules below
say what each does.
"""
