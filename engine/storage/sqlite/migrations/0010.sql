-- Trace context of a request, in the form of the header ``traceparent``. NULL: the request came without one.
ALTER TABLE invocation ADD COLUMN trace TEXT;
