"""Statements as people and programs read them: text, JSON, CSV and HTML of one document.

The stored document (`tallystick.plans.statement`) is the only source; what Stripe has added since,
its tax and whether the money came, is shown beside it and never mixed in. All formats but JSON are
made from one layout (`sheet`), so that no format can say more or less than another.
"""
