"""Objects by URI through fsspec, published whole or not at all."""
