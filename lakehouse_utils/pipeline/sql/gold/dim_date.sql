-- The calendar: one row per day, for all years with an order. date_sk is the date as a number: 20260131.
-- key: date_sk
-- reads: silver.orders

-- name: rows
WITH years AS (
    SELECT
        date_trunc('year', min(order_date)) AS first_day,
        date_trunc('year', max(order_date)) + INTERVAL 1 YEAR - INTERVAL 1 DAY AS last_day
    FROM silver.orders
),

moments AS (
    SELECT unnest(generate_series(first_day, last_day, INTERVAL 1 DAY)) AS moment
    FROM years
),

days AS (
    SELECT CAST(moment AS DATE) AS date
    FROM moments
)

SELECT
    CAST(strftime(date, '%Y%m%d') AS BIGINT) AS date_sk,
    date,
    CAST(year(date) AS INTEGER) AS year,
    CAST(quarter(date) AS INTEGER) AS quarter,
    CAST(month(date) AS INTEGER) AS month,
    strftime(date, '%B') AS month_name,
    CAST(day(date) AS INTEGER) AS day,
    CAST(isodow(date) AS INTEGER) AS weekday,
    strftime(date, '%A') AS weekday_name,
    isodow(date) >= 6 AS is_weekend
FROM days
UNION ALL
SELECT CAST(-1 AS BIGINT), NULL, NULL, NULL, NULL, 'Unknown', NULL, NULL, 'Unknown', NULL
