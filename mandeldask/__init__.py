"""Mandelbrot escape-time fields of any size, on Dask, stored as Zarr."""
