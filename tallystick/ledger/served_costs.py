"""What the ledger says that Claude's answers cost, added up in the database by day and model.

As it holds now: where a record was rated again, by its latest adjustment. Settled calls of unknown
outcome count with what they have cost. Most records are told by their one cost; those of several
models, with searches, or with adjustments are told by the lines that the cost is the sum of.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, text

from tallystick.ledger.database import Transaction
from tallystick.ledger.served_usage import BUCKET, PLAIN
from tallystick.ledger.tables import OPEN_ATTEMPTS
from tallystick.money import EXACT, times
from tallystick.pricing import price_book
from tallystick.reconciling.costs import DayCost, Where

_DAY = timedelta(days=1)
_SIMPLE = f"""
    {PLAIN} AND web_searches = 0
    AND NOT EXISTS (
        SELECT FROM adjustments a WHERE a.usage_record_id = usage_records.usage_record_id
    )
"""
_WITHIN = "served_at >= :start AND served_at < :end"
_RECORDED = text(
    f"""
    SELECT {BUCKET.format("served_at")}, model, 'tokens' AS component, sum(cost_usd) AS usd,
        count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced, {_SIMPLE} AS simple
    FROM usage_records WHERE {_WITHIN} GROUP BY 1, 2, 6
    """  # noqa: S608 - of names from the code alone
)
_BY_LINE = text(
    f"""
    SELECT {BUCKET.format("r.served_at")}, l.model, sum(l.amount_usd) AS usd,
        CASE l.kind WHEN 'web_search' THEN 'web_search' ELSE 'tokens' END AS component,
        0 AS unpriced
    FROM (SELECT * FROM usage_records WHERE {_WITHIN} AND NOT ({_SIMPLE})) r
    LEFT JOIN LATERAL (
        SELECT lines FROM adjustments a WHERE a.usage_record_id = r.usage_record_id
        ORDER BY adjustment_id DESC LIMIT 1
    ) a ON true
    CROSS JOIN LATERAL jsonb_to_recordset(coalesce(a.lines, r.lines))
        AS l (model text, kind text, amount_usd numeric)
    GROUP BY 1, 2, 4
    """  # noqa: S608 - of names from the code alone
)
_SETTLED = text(
    f"""
    SELECT {BUCKET.format("d.start_at")}, coalesce(d.place->>'model', '') AS model,
        sum(s.cost_usd) AS usd, sum(s.web_searches) AS web_searches
    FROM discrepancies d
    JOIN attempt_settlements s USING (discrepancy_id)
    JOIN attempts a USING (attempt_id)
    WHERE d.start_at >= :start AND d.start_at < :end AND s.served AND a.{OPEN_ATTEMPTS}
    GROUP BY 1, 2
    """  # noqa: S608 - of names from the code alone
)


async def served_costs(tx: Transaction, start: datetime, end: datetime) -> dict[Where, DayCost]:
    """Return the cost of the whole UTC days in [start, end), by day, model and component."""
    span = {"start": start, "end": end, "width": _DAY}
    recorded = (await tx.execute(_RECORDED, span)).all()
    rows: list[Row[Any]] = [row for row in recorded if row.simple]
    if len(rows) < len(recorded):
        rows += await tx.execute(_BY_LINE, span)
    costs: dict[Where, DayCost] = {}
    _add(costs, ((row, row.component, row.usd, row.unpriced) for row in rows))
    # What has no price has no lines either; that it is there is told beside them.
    _add(costs, ((row, "tokens", 0, row.unpriced) for row in recorded if not row.simple))
    for row in await tx.execute(_SETTLED, span):
        searches = times(int(row.web_searches), price_book().web_search_usd)
        tokens = EXACT.subtract(row.usd, searches)
        _add(costs, ((row, "tokens", tokens, 0), (row, "web_search", searches, 0)))
    return costs


def _add(
    costs: dict[Where, DayCost], more: Iterable[tuple[Row[Any], str, Decimal | int | None, int]]
) -> None:
    for row, component, usd, unpriced in more:
        where = Where.of(row.at.date(), row.model, component)
        costs[where] = costs.get(where, DayCost()).plus(DayCost(Decimal(usd or 0), unpriced))
