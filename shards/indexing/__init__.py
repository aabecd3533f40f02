"""`shards index`: anybody's WebDataset tars become a dataset where they lie, without a copy of their pictures."""
