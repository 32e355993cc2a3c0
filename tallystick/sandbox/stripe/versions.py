"""Events as older API versions have them, for the fields that billing reads.

Since 2025-03-31 an invoice names its subscription in `parent`, and a period belongs to a
subscription's items; before that both stood at the top (facts on Stripe, 'Subscriptions').
"""

from tallystick.sandbox.stripe.subscription_states import subscription_of
from tallystick.sandbox.stripe.wire import Obj

_MOVED = "2025-03-31"


def as_of(event: Obj, version: str) -> Obj:
    """Return a copy of an event in a version's name and shape."""
    shown = {**event, "api_version": version}
    if version < _MOVED:
        shown["data"] = {**event["data"], "object": _older(event["data"]["object"])}
    return shown


def _older(obj: Obj) -> Obj:
    match obj["object"]:
        case "invoice":
            rest = {key: value for key, value in obj.items() if key not in ("parent", "payments")}
            return rest | {
                "subscription": subscription_of(obj),
                "paid": obj["status"] == "paid",
                "tax": sum(each["amount"] for each in obj["total_taxes"]),
            }
        case "subscription":
            first = obj["items"]["data"][0]
            bounds = ("current_period_start", "current_period_end")
            items = [
                {key: value for key, value in item.items() if key not in bounds}
                for item in obj["items"]["data"]
            ]
            return {
                **obj,
                **{name: first[name] for name in bounds},
                "items": {**obj["items"], "data": items},
            }
        case _:
            return obj
