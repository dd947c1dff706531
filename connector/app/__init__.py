"""The composition root: the only place that knows which adapter answers which port."""
