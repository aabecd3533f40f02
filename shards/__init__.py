"""From pictures to tar shards, and from tar shards to batches in a planned order."""
