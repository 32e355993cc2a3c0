"""The ledger: the only code that talks to PostgreSQL. Terms and rules are in the README here."""
