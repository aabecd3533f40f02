"""Turn pictures into tar shards, and read the shards in a planned order.

sources/ lists folders, zips and tars; images/ decodes and encodes pictures; building/ is `shards build`; dataset/ opens
and streams the result; verify.py and inspect.py are the other two commands.
"""
