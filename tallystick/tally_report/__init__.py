"""What reconciliation has seen of a span of time, as a page for people: plots and differences.

`series` lays the hours out, `plot` draws them, `page` puts both beside the discrepancies and what
was done about them. They compute from rows that somebody else has read.
"""
