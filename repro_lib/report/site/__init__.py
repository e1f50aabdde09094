"""The HTML site: executed notebooks become pages, the results an index over them."""
