"""Paths of the project, independent of the folder of a test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
