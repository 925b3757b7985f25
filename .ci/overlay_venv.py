"""A virtual environment on top of the one that runs this: what it installs goes before, all else is
shared. For packages that hold others back, and for many that only few tests need.

    .venv/bin/python .ci/overlay_venv.py FOLDER WHAT...

WHAT is what `pip install` is told.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

folder, *what = sys.argv[1:]
venv.create(folder, clear=True, with_pip=False, symlinks=True)
python = Path(folder) / "bin/python"
ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
packages = Path(subprocess.check_output([python, "-c", ask], text=True).strip())
below = sysconfig.get_path("purelib")
(packages / "_below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
sys.exit(subprocess.call([*pip, *what]))
