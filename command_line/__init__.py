"""What the command lines of all packages share: parsing, signals and standard streams. It imports none of them."""
