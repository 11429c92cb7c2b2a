"""Number formats, and what casts to them cost."""

from helpers.formats.layer_tensors import best, cast_errors, of_run, product_errors
from helpers.formats.number_formats import table
