"""Places where files are: `Place` (place.py) is a path or a URL, and `Storage` (storage.py) reads and writes there.

Local folders, s3://, gs://, az://, https:// and memory:// through obstore, and what else fsspec knows, such as hf://.
"""
