"""A Stripe in memory: customers, a catalogue, meters and their events, as the API shows them.

One file per resource, each a list of endpoints that `app.py` puts behind the same gates
(authentication, faults, holds, idempotency keys). Facts on Stripe is what it imitates.
"""

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.app import create_stripe_app

__all__ = ["Account", "create_stripe_app"]
