-- Sales by month, store and category. Rejected orders (status 3) and lines without a date are left out.
-- key: month, store_name, category_name
-- reads: gold.fact_sales, gold.dim_stores, gold.dim_products

-- name: rows
-- Orders are counted as rows, because count(DISTINCT ...) would have to fit into memory. All lines of an order have the
-- same date and the same store.
WITH orders AS (
    SELECT
        f.order_id,
        p.category_name,
        min(f.order_date) AS order_date,
        min(f.store_sk) AS store_sk,
        sum(f.quantity) AS units,
        sum(f.net_amount) AS revenue
    FROM gold.fact_sales AS f
    INNER JOIN gold.dim_products AS p ON f.product_sk = p.product_sk
    WHERE f.order_date IS NOT NULL AND coalesce(f.order_status, 0) <> 3
    GROUP BY f.order_id, p.category_name
)

SELECT
    CAST(date_trunc('month', o.order_date) AS DATE) AS month,
    s.store_name,
    o.category_name,
    count(*) AS orders,
    CAST(sum(o.units) AS BIGINT) AS units,
    CAST(sum(o.revenue) AS DECIMAL(18, 4)) AS revenue
FROM orders AS o
INNER JOIN gold.dim_stores AS s ON o.store_sk = s.store_sk
GROUP BY 1, s.store_name, o.category_name
