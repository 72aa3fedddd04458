"""Embeddings of many images: `sources.py` lists them as `items.py` describes, `embed.py` embeds them part by
part, `store.py` keeps the parts as Parquet files. The work runs in one process, or on Ray
(`ray_executor.py`), with the same result.

Images come from files, buckets (`buckets.py`) or web servers (`web.py`); a store is a folder on disk or in a
bucket (`folders.py`). Buckets are accessed through Arrow's file systems: pyarrow is a dependency anyway, it
supports S3 and Google Cloud Storage, and it needs no event loop. fsspec would add s3fs and gcsfs.
"""
