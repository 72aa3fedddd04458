"""Embeddings of many images: `sources.py` lists them, `embed.py` embeds them part by part, `store.py` keeps
the parts as Parquet. One process does it, or a Ray cluster (`ray_executor.py`), with the same result.
"""
