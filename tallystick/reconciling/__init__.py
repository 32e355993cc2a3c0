"""Laying records side by side: what differs, why, and what would mend it. Pure functions of rows.

The terms, and which side owns what, are in this folder's README.
"""
