-- The sales: one row per line of an order, with quantity and prices, and the keys of product, customer, staff, store
-- and date.
-- key: order_id, item_id
-- reads: silver.order_items, silver.orders, silver.customers_history, silver.products_history, silver.stores, silver.staffs

-- name: changed_keys
-- Orders with a change since the last refresh, in a line, in the order, or in a dimension that they point to.
WITH changed_orders AS (
    SELECT order_id
    FROM silver.orders
    WHERE _bronze_version > {orders_version}
        OR customer_id IN (
            SELECT customer_id FROM silver.customers_history WHERE _bronze_version > {customers_history_version}
        )
        OR store_id IN (SELECT store_id FROM silver.stores WHERE _bronze_version > {stores_version})
        OR staff_id IN (SELECT staff_id FROM silver.staffs WHERE _bronze_version > {staffs_version})
)

SELECT order_id FROM changed_orders
UNION
SELECT order_id
FROM silver.order_items
WHERE _bronze_version > {order_items_version}
    OR product_id IN (
        SELECT product_id FROM silver.products_history WHERE _bronze_version > {products_history_version}
    )

-- name: rows
-- Customer and product: the version in force at the end of the day of the order, or the current version if the order
-- has no date (`least` ignores NULL). A key without a known member points to the unknown member, -1. What depends on an
-- order or a member is computed before the joins, because there are many more lines.
WITH customers AS (
    SELECT
        customer_id,
        surrogate_key('dim_customers', customer_id, valid_from) AS customer_sk,
        in_force_from(valid_from, is_first) AS valid_from,
        coalesce(valid_to, TIMESTAMPTZ '9999-12-31 00:00:00+00') AS valid_to
    FROM silver.customers_history
),

products AS (
    SELECT
        product_id,
        surrogate_key('dim_products', product_id, valid_from) AS product_sk,
        in_force_from(valid_from, is_first) AS valid_from,
        coalesce(valid_to, TIMESTAMPTZ '9999-12-31 00:00:00+00') AS valid_to
    FROM silver.products_history
),

staffs AS (
    SELECT staff_id, surrogate_key('dim_staffs', staff_id, NULL) AS staff_sk
    FROM silver.staffs
),

stores AS (
    SELECT store_id, surrogate_key('dim_stores', store_id, NULL) AS store_sk
    FROM silver.stores
),

orders AS (
    SELECT
        order_id,
        customer_id,
        staff_id,
        store_id,
        order_date,
        order_status,
        CAST(strftime(order_date, '%Y%m%d') AS BIGINT) AS date_sk,
        CAST(least(order_date + INTERVAL 1 DAY, DATE '9999-12-31') AS TIMESTAMPTZ) AS day_end
    FROM silver.orders
),

lines AS (
    SELECT
        i.order_id,
        i.item_id,
        i.product_id,
        i.quantity,
        i.list_price,
        i.discount,
        o.customer_id,
        o.staff_id,
        o.store_id,
        o.date_sk,
        o.order_date,
        o.order_status,
        coalesce(o.day_end, TIMESTAMPTZ '9999-12-31 00:00:00+00') AS day_end
    FROM silver.order_items AS i
    LEFT JOIN orders AS o ON i.order_id = o.order_id
    WHERE i.order_id {is_changed}
)

SELECT
    l.order_id,
    l.item_id,
    coalesce(p.product_sk, -1) AS product_sk,
    coalesce(c.customer_sk, -1) AS customer_sk,
    coalesce(s.staff_sk, -1) AS staff_sk,
    coalesce(t.store_sk, -1) AS store_sk,
    coalesce(l.date_sk, -1) AS date_sk,
    l.order_date,
    l.order_status,
    l.quantity,
    l.list_price,
    l.discount,
    CAST(l.quantity * l.list_price * (1 - l.discount) AS DECIMAL(18, 4)) AS net_amount
FROM lines AS l
LEFT JOIN products AS p ON l.product_id = p.product_id AND p.valid_from < l.day_end AND p.valid_to >= l.day_end
LEFT JOIN customers AS c ON l.customer_id = c.customer_id AND c.valid_from < l.day_end AND c.valid_to >= l.day_end
LEFT JOIN staffs AS s ON l.staff_id = s.staff_id
LEFT JOIN stores AS t ON l.store_id = t.store_id
