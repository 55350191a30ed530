"""The lesson, measured on the machine at hand: what NumPy parallelises, and the Mandelbrot case by each strategy.

`lesson` holds the lesson's functions, `machine` describes what there is to compute with, `timing` takes times. `claims`
and `experiments` test the lesson's sentences. `strategies` and `scaling` compute one `workload` in every way. `results`
joins them as one JSON value, which `tables` and the page of `report` show.
"""
