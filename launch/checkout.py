"""Puts the checkout that a script lies in on the path, before what is installed."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
