"""Number formats, and what casts to them cost."""

from helpers.formats.accumulation import accumulation_errors
from helpers.formats.layer_tensors import cast_errors, decides, normal, of_run, product_errors
from helpers.formats.number_formats import table
from helpers.formats.outlier import loudest, outlier_errors
