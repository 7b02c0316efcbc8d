"""Makes `import lakehouse_utils` work in these notebooks, also where the package was not installed.

A notebook looks for modules in its own folder first, and finds this one. It loads the package of this checkout in its
place, so that `pip install -r requirements.txt` is all that a notebook needs.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_package = Path(__file__).resolve().parent.parent / "lakehouse_utils"
_spec = spec_from_file_location(__name__, _package / "__init__.py", submodule_search_locations=[str(_package)])
sys.modules[__name__] = module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[__name__])
