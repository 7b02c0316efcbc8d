-- Sales by customer, over all versions of the customer, with the current state. Rejected orders (status 3) are left
-- out.
-- key: customer_id
-- reads: gold.fact_sales, gold.dim_customers

-- name: rows
-- Each step is materialized, and orders are counted as rows, because count(DISTINCT ...) would have to fit into memory.
WITH orders AS MATERIALIZED (
    SELECT
        customer_sk,
        order_id,
        min(order_date) AS order_date,
        sum(quantity) AS units,
        sum(net_amount) AS revenue
    FROM gold.fact_sales
    WHERE coalesce(order_status, 0) <> 3
    GROUP BY customer_sk, order_id
),

sales AS MATERIALIZED (
    SELECT
        c.customer_id,
        min(o.order_date) AS first_order,
        max(o.order_date) AS last_order,
        count(*) AS orders,
        CAST(sum(o.units) AS BIGINT) AS units,
        CAST(sum(o.revenue) AS DECIMAL(18, 4)) AS revenue
    FROM orders AS o
    INNER JOIN gold.dim_customers AS c ON o.customer_sk = c.customer_sk
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
