"""The HTTP door for machines that watch: health, metrics, and the log's public tiles."""
