-- Asks for upload_stats so many times, as a monitor does in one session; returns how
-- many milliseconds each time took, and how many buffers were read.
CREATE FUNCTION ask_stats(times integer) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    plan json;
    results json[];
BEGIN
    FOR i IN 1 .. times LOOP
        EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT * FROM vali_blob.upload_stats' INTO plan;
        plan := plan->0;
        results[i] := json_build_array(plan->'Execution Time',
            (plan->'Plan'->>'Shared Hit Blocks')::bigint + (plan->'Plan'->>'Shared Read Blocks')::bigint);
    END LOOP;
    RETURN array_to_json(results);
END
$$;
