"""One call that balances a built mmdet model in a user's own training loop.

Not `balance`: a module of that name would take the function's place in the package.
"""

from __future__ import annotations

from typing import Any

from msbal.backend.kit.balance import Request, balance_function
from msbal.backend.kit.balanced import Balanced
from msbal_mmdet.splitters.find import find


@balance_function
def balance(model: Any, request: Request) -> Balanced:
    """Balance the pyramid levels of a built mmdet model while it trains.

    It takes any detector of mmdet's whose loss is a sum over pyramid levels. The heads return their losses in mmdet's
    own form: ``train_step``, ``parse_losses`` and everything else stay as they are.
    """
    found = find(model, None if tuple(request.scope) == ("rpn",) else request.scope)
    return request.put(model, found.splitters, found.notes)
