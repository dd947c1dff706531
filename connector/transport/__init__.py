"""The doors: protobuf and JSON stop here, services behind speak in typed values."""
