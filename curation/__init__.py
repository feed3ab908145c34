"""Crawled text in, tokenized shards out. Nothing heavy is imported until it is used."""

from __future__ import annotations

__version__ = "0.1.0"
