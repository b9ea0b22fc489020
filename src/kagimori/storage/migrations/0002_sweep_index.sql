-- oldest-reader: 1
-- Lets a purge find what has expired without looking at everything. An expansion only: programs
-- of schema 1 read and write beside it.

CREATE INDEX document_sweep ON document (sweep) WHERE sweep IS NOT NULL;
