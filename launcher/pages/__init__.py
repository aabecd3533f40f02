"""Pages of one file that need no network: escaped markup, tables, SVG figures, pictures, and the style they share."""
