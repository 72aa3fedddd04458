"""Vectors for many pictures: `sources.py` lists them, `embed.py` gives them vectors part by part, `store.py`
keeps the parts as Parquet. One process does it, or a Ray cluster (`ray_engine.py`), with the same result.
"""
