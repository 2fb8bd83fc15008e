"""Numbers behind figures, and the figures.

Only `style` and the modules of figures import matplotlib; nothing here imports them.
"""
