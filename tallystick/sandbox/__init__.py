"""Stand-ins for Claude and Stripe: their wire protocols over real HTTP, with faults on demand.

They exist so that everything can be run, broken and counted without an account or a key. Each is
an ASGI app that the unmodified official SDK talks to; each keeps a journal of what it served or
accepted, which is the third party's side of the tally. README.md beside this file tells what each
imitates and how to control it.
"""
