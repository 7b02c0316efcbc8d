-- What a customer has bought, over all versions of the customer; the state is today's. Rejected orders (status 3) are
-- left out.
-- key: customer_id
-- reads: gold.fact_sales, gold.dim_customers

-- name: rows
WITH sales AS (
    SELECT
        c.customer_id,
        min(f.order_date) AS first_order,
        max(f.order_date) AS last_order,
        count(DISTINCT f.order_id) AS orders,
        CAST(sum(f.quantity) AS BIGINT) AS units,
        CAST(sum(f.net_amount) AS DECIMAL(18, 4)) AS revenue
    FROM gold.fact_sales AS f
    INNER JOIN gold.dim_customers AS c ON f.customer_sk = c.customer_sk
    WHERE coalesce(f.order_status, 0) <> 3
    GROUP BY c.customer_id
)

SELECT
    c.customer_id,
    c.state,
    s.first_order,
    s.last_order,
    s.orders,
    s.units,
    s.revenue
FROM sales AS s
INNER JOIN gold.dim_customers AS c ON s.customer_id = c.customer_id AND c.is_current
