"""Figures of the papers and of the analysis: from records to pictures.

Nothing here trains or measures; `launch/figures.py` draws them.
"""
