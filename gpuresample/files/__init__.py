"""Volumes, scores and jobs, in files and out of files, whole or not at all.

`gpuresample.files.read` and `gpuresample.files.write` are for volumes of any format: see `docs/files.md`.
"""

from gpuresample.files.volumes import Header, header, read, write

__all__ = ["Header", "header", "read", "write"]
