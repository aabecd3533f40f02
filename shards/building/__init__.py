"""From a source of pictures to shards."""
