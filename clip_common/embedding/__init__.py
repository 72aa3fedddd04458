"""Embeddings of many images: `sources.py` lists them as `items.py` says, `embed.py` embeds them part by part,
`store.py` keeps the parts as Parquet. One process does it, or Ray (`ray_executor.py`), with the same result.

Images come from files, buckets (`buckets.py`) or web servers (`web.py`); a store is a folder on disk or in a
bucket (`folders.py`). Arrow's file systems ask the buckets: they are here already, know S3 and Google's, and
need no event loop; fsspec with s3fs and gcsfs would bring several packages more.
"""
