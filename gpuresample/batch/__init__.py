"""Folders of volumes on Dask workers: what is to be done, one volume in a worker, records, the run, its report."""
