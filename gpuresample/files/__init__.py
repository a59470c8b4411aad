"""Volumes, scores and jobs, in files and out of files, whole or not at all."""
