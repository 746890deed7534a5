"""The embedded data sets.

A small world of topics in Chinese and English, with pictures drawn for each.
"""

from __future__ import annotations

from ffr.data.sample.generate import SAMPLE_NAMES, is_outdated, write_sample

__all__ = ["SAMPLE_NAMES", "is_outdated", "write_sample"]
