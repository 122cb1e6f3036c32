"""One call that balances a YOLO model in a user's own script.

Not `balance`: a module of that name would take the function's place in the package.
"""

from __future__ import annotations

from typing import Any

from msbal.backend.kit.balance import Request, balance_function
from msbal.backend.kit.balanced import Balanced, require_unbalanced
from msbal_ultralytics.splitters import find


@balance_function
def balance(model: Any, request: Request) -> Balanced:
    """Balance the pyramid levels of a YOLO model while ultralytics, or a loop of your own, trains it."""
    require_unbalanced(model)
    return request.put(model, find(model))
