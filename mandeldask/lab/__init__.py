"""The lesson, measured on the machine at hand: what NumPy parallelises, and the Mandelbrot case by each strategy.

`lesson` holds the lesson's functions, `machine` what there is to compute with, `timing` how a time is taken, `claims`
the lesson's sentences as experiments, `strategies` and `scaling` the same `workload` computed in every way, `pools`
the processes for it, `results` the whole as one value with its JSON and Markdown, `report` and `plots` its page.
The lab measures; nothing else imports it but `cli`.
"""
