-- Sales by product, over all versions of the product, with the current names. Rejected orders (status 3) are left out.
-- key: product_id
-- reads: gold.fact_sales, gold.dim_products

-- name: rows
-- Orders are counted as rows, because count(DISTINCT ...) would have to fit into memory.
WITH orders AS (
    SELECT
        p.product_id,
        f.order_id,
        sum(f.quantity) AS units,
        sum(f.net_amount) AS revenue,
        max(f.order_date) AS last_sold
    FROM gold.fact_sales AS f
    INNER JOIN gold.dim_products AS p ON f.product_sk = p.product_sk
    WHERE coalesce(f.order_status, 0) <> 3
    GROUP BY p.product_id, f.order_id
),

sales AS (
    SELECT
        product_id,
        count(*) AS orders,
        CAST(sum(units) AS BIGINT) AS units,
        CAST(sum(revenue) AS DECIMAL(18, 4)) AS revenue,
        max(last_sold) AS last_sold
    FROM orders
    GROUP BY product_id
)

SELECT
    p.product_id,
    p.product_name,
    p.brand_name,
    p.category_name,
    s.orders,
    s.units,
    s.revenue,
    s.last_sold
FROM sales AS s
INNER JOIN gold.dim_products AS p ON s.product_id = p.product_id AND p.is_current
