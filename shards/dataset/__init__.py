"""A folder of shards as a dataset: `Index` (index.py) opens it, `Order` (order.py) plans the order of the samples,
`Reader` and `stream_planned` (stream.py) read them, and corruption.py finds damaged ones."""
