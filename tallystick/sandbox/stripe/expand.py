"""`expand`: ids in an answer replaced by the objects they name."""

from typing import Any, cast

from tallystick.sandbox.stripe import invoice_payments
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.lists import whole
from tallystick.sandbox.stripe.wire import Obj, Refusal

_KINDS = {
    "customer": "customer",
    "default_payment_method": "payment_method",
    "invoice": "invoice",
    "latest_invoice": "invoice",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "price": "price",
    "product": "product",
    "subscription": "subscription",
}


def expanded(account: Account, answer: Obj, paths: list[str]) -> Obj:
    """Return a copy of an answer with what the paths name put in; the stored objects stay.

    Raises:
        Refusal: 400 for a path that cannot be expanded.
    """
    for path in paths:
        answer = _expanded(account, answer, path.split("."), path)
    return answer


def _expanded(account: Account, node: Any, names: list[str], path: str) -> Any:
    if isinstance(node, list):
        return [_expanded(account, each, names, path) for each in cast(list[Any], node)]
    if node is None or not names:
        return node
    name, *rest = names
    if not isinstance(node, dict) or (name not in node and name != "payments"):
        raise Refusal(400, f"This property cannot be expanded ({path}).", param="expand")
    obj = cast(Obj, node)
    inner = obj.get(name)
    if name == "payments" and obj.get("object") == "invoice":
        rows = invoice_payments.of_invoice(account, obj["id"])
        inner = whole(f"{invoice_payments.PATH}?invoice={obj['id']}", rows)
    elif isinstance(inner, str):
        if name not in _KINDS:
            raise Refusal(400, f"This property cannot be expanded ({path}).", param="expand")
        inner = account.table(_KINDS[name]).get(inner, inner)
    return {**obj, name: _expanded(account, inner, rest, path)}
