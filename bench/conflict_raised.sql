-- The same conflict as an error, which raise_conflict() catches
\set id 4000000000000000001 + random(0, :sessions - 1)
SELECT raise_conflict(:id);
