-- The smallest transaction that writes WAL
SELECT pg_logical_emit_message(true, '', '');
