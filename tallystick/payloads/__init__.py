"""Content outside our processes: sealed under the operator's keys, and apart where it is large.

`keys` is the cipher, `codec` seals what goes through Temporal, `columns` what the ledger holds for
a while. `parts` and the two storages keep what is too large for a history, and `converter` puts all
of it together. An application imports none of this: `tallystick.connect_temporal` does.
"""
