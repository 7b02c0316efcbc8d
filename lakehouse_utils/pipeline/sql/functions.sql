-- The functions that the SQL of silver and gold calls. Every engine provides them.

-- name: surrogate_key
-- The key of one version of a row in a dimension: 60 bits of a hash of the dimension's name, the row's own key and the
-- moment the version began (NULL for a dimension without versions). The same input always gives the same key, so facts
-- and dimensions can be built independently of each other and in any order.
CREATE OR REPLACE TEMP MACRO surrogate_key(dimension, id, since) AS
    CAST(
        concat('0x', substr(md5(concat_ws('|', dimension, id, epoch_us(CAST(since AS TIMESTAMPTZ)))), 1, 15)) AS BIGINT
    )

-- name: in_force_from
-- The time from which a version applies. The first version of a row also applies to everything before it.
CREATE OR REPLACE TEMP MACRO in_force_from(valid_from, is_first) AS
    CASE WHEN is_first THEN TIMESTAMPTZ '1900-01-01 00:00:00+00' ELSE valid_from END


-- name: utc_of_local
-- The moment at which clocks in a time zone show `local`, a timestamp that was read as if it were in UTC.
CREATE OR REPLACE TEMP MACRO utc_of_local(local, zone) AS timezone(zone, timezone('UTC', local))

-- name: local_of_utc
-- What clocks in a time zone show at a moment, as a timestamp that is to be read as if it were in UTC.
CREATE OR REPLACE TEMP MACRO local_of_utc(moment, zone) AS timezone('UTC', timezone(zone, moment))
