-- Runs a query so many times, and returns how long each run took.
CREATE FUNCTION milliseconds(query text, times integer) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    begun timestamptz;
    results float8[];
BEGIN
    FOR i IN 1 .. times LOOP
        begun := clock_timestamp();
        EXECUTE query;
        results[i] := 1000 * extract(epoch FROM clock_timestamp() - begun);
    END LOOP;
    RETURN to_json(results);
END
$$;
