from __future__ import annotations

import subprocess
import sys


def test_the_terminal_needs_no_torch() -> None:
    code = (
        "import sys; import msbal.ui.grid, msbal.ui.monitor; "
        "print(sorted({'torch', 'numpy', 'pydantic', 'msbal.trackers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "[]"
