"""The sentinel: it looks at what the generator paints while it trains, says whether it has collapsed, and why."""
