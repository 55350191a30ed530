"""The lesson, measured on the machine at hand: what NumPy parallelises, and the Mandelbrot case by each strategy.

`lesson` holds the lesson's functions, `machine` describes what there is to compute with, `timing` takes times. `claims`
tests the lesson's sentences, `strategies` computes one `workload` in every way. What they find is a value as JSON takes
it, which `tables` and the page of `report` show.
"""
