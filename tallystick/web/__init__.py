"""HTTP for people and for Stripe. Nothing is served here yet; see the README, "Not done yet"."""
