"""Rover's wire format: the .proto files and the code generated from them (`make wire`)."""
