"""`shards build`: from a source of pictures to a folder of shards. build.py is the command, and the place to start."""
