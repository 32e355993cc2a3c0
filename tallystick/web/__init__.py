"""HTTP for Stripe and for operators: webhooks, health, metrics. `tallystick web` serves it."""
