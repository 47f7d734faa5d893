"""What this repository measures, draws and tabulates; no part of the installed package.

    benchmark/    what a step costs by every method, and how training divides
    exhibits/     what the figures of the analysis show
    figures/      those and the figures of the papers, drawn
    budget.py     what a step takes of many chips, on paper
    scaling.py    how the cost of a gradient grows
    flops.py      operations, by an analytic model
    results.py    records of sweeps, and the table of them

`launch/benchmark.py`, `launch/figures.py` and `launch/results.py` run these; the other
files are scripts with a command line of their own. All of it is imported from the root
of a checkout, and uses the library as others do; the library does not know of it.
"""
