"""What cells call, in wings: README.md, "For those who change it", has the map."""

import sys

if "IPython" in sys.modules:
    from helpers.show import errors, frames

    frames.set_in_jupyter()
    errors.set_in_ipython()
