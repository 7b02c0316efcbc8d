"""Makes `import lakehouse_utils` work in these notebooks, also where the package was not installed.

A notebook looks for a module in its own folder first, and finds this one. It loads in its place the package beside the
folder, or, for a copy of the folder, the package that is installed. So `pip install -r requirements.txt` is enough.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_folder = Path(__file__).resolve().parent
_spec = PathFinder.find_spec(__name__, [str(_folder.parent), *(p for p in sys.path if Path(p).resolve() != _folder)])
if _spec is None or _spec.loader is None:
    raise ModuleNotFoundError(
        "The package lakehouse_utils was not found beside this folder, and it is not installed. "
        "Install it from a clone of the repository: pip install --no-deps --no-build-isolation -e ."
    )
sys.modules[__name__] = module_from_spec(_spec)
_spec.loader.exec_module(sys.modules[__name__])
