"""HTTP for Stripe and operators: webhooks, health, metrics, codec. `tallystick web` serves it."""
